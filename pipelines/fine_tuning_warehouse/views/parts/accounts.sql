-- Each account, and whether the materialized rows were made from the rows that it has now.
SELECT
  r.account,
  r.row_count,
  r.last_load_id,
  CASE WHEN m.row_count = r.row_count AND m.last_load_id = r.last_load_id THEN 1 ELSE 0 END AS is_materialized
FROM _account_rows AS r
LEFT JOIN materialized.accounts AS m
  ON m.account = r.account
