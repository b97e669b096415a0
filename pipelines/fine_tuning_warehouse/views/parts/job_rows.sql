-- The same as _account_rows, of each job. The files of an account count for jobs with several result files: these say
-- which of them is the newest.
SELECT
  account,
  fine_tuning_job_id,
  COUNT(*) AS row_count,
  CASE WHEN COUNT(_dlt_load_id) = COUNT(*) THEN MAX(_dlt_load_id) END AS last_load_id
FROM (
  SELECT account, fine_tuning_job_id, _dlt_load_id FROM events
  UNION ALL
  SELECT account, fine_tuning_job_id, _dlt_load_id FROM result_metrics
  UNION ALL
  SELECT account, fine_tuning_job_id, _dlt_load_id FROM checkpoints
  UNION ALL
  SELECT account, id AS fine_tuning_job_id, _dlt_load_id FROM jobs
  UNION ALL
  SELECT j.account, j.id AS fine_tuning_job_id, MAX(f._dlt_load_id) AS _dlt_load_id
  FROM jobs AS j
  JOIN files AS f
    ON f.account = j.account
  WHERE j.result_files LIKE '%,%'
  GROUP BY j.account, j.id
) AS all_rows
GROUP BY account, fine_tuning_job_id
