-- How many rows each account has in the tables that materialized rows are made from, and their newest load; null where a
-- row does not say which load it is from.
SELECT
  account,
  COUNT(*) AS row_count,
  CASE WHEN COUNT(_dlt_load_id) = COUNT(*) THEN MAX(_dlt_load_id) END AS last_load_id
FROM (
  SELECT account, _dlt_load_id FROM events
  UNION ALL
  SELECT account, _dlt_load_id FROM result_metrics
  UNION ALL
  SELECT account, _dlt_load_id FROM checkpoints
  UNION ALL
  SELECT account, _dlt_load_id FROM jobs
  UNION ALL
  SELECT account, _dlt_load_id FROM files
) AS all_rows
GROUP BY account
