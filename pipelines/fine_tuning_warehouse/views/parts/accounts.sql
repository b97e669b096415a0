-- Each account, and whether the materialized rows were made from the rows that it has now.
SELECT
  r.account,
  r.row_count,
  r.loads,
  CASE WHEN m.row_count = r.row_count AND m.loads = r.loads THEN 1 ELSE 0 END AS is_materialized
FROM _account_rows AS r
LEFT JOIN materialized.accounts AS m
  ON m.account = r.account
