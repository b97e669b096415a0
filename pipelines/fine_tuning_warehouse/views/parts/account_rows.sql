-- How many rows each account has in the tables that materialized rows are made from, and a checksum of the loads that
-- wrote them: it is null where a row does not say which load it is from.
SELECT
  account,
  COUNT(*) AS row_count,
  CASE WHEN COUNT(_dlt_load_id) = COUNT(*) THEN CAST(SUM(LOAD_NUMBER(_dlt_load_id)) AS BIGINT) END AS loads
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
