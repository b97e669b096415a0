-- The same as _account_rows, of each job. The files of an account count for jobs with several result files: these say
-- which of them is the newest.
SELECT
  account,
  fine_tuning_job_id,
  COUNT(*) AS row_count,
  CASE WHEN COUNT(loads) = COUNT(*) THEN CAST(SUM(loads) AS BIGINT) END AS loads
FROM (
  SELECT account, fine_tuning_job_id, LOAD_NUMBER(_dlt_load_id) AS loads FROM events
  UNION ALL
  SELECT account, fine_tuning_job_id, LOAD_NUMBER(_dlt_load_id) AS loads FROM result_metrics
  UNION ALL
  SELECT account, fine_tuning_job_id, LOAD_NUMBER(_dlt_load_id) AS loads FROM checkpoints
  UNION ALL
  SELECT account, id AS fine_tuning_job_id, LOAD_NUMBER(_dlt_load_id) AS loads FROM jobs
  UNION ALL
  SELECT j.account, j.id AS fine_tuning_job_id, SUM(LOAD_NUMBER(f._dlt_load_id)) AS loads
  FROM jobs AS j
  JOIN files AS f
    ON f.account = j.account
  WHERE j.result_files LIKE '%,%'
  GROUP BY j.account, j.id
) AS all_rows
GROUP BY account, fine_tuning_job_id
