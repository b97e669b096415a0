-- Every value of every metric at every step, from all that tells of it: one long table to draw curves from. The same
-- step may have a value from each source. Values are as loaded: NaN, where a run diverged, included. A loss or an
-- accuracy below 0 is left out, since it stands for "not measured".
--
-- account: Label of the account that the row came from.
-- fine_tuning_job_id: Id of the job.
-- step: Training step.
-- metric: Name of the metric, such as train_loss or full_valid_loss; train_accuracy of a file is train_mean_token_accuracy.
-- value: Its value at that step.
-- source: What it was read from: event, result_file or checkpoint.

-- Each part stands for as many as its table has metrics: each_metric is the column, 'each_metric' its metric's name.
SELECT
  account,
  fine_tuning_job_id,
  CAST(CASE WHEN data__step BETWEEN -1e15 AND 1e15 THEN data__step END AS BIGINT) AS step,
  'each_metric' AS metric,
  CAST(each_metric AS DOUBLE) AS value,
  'event' AS source
FROM events
WHERE MEASURED(each_metric) IS NOT NULL AND data__step BETWEEN -1e15 AND 1e15

UNION ALL

SELECT
  account,
  fine_tuning_job_id,
  step,
  'each_metric' AS metric,
  CAST(each_metric AS DOUBLE) AS value,
  'result_file' AS source
FROM result_metrics
WHERE MEASURED(each_metric) IS NOT NULL

UNION ALL

SELECT
  account,
  fine_tuning_job_id,
  step_number AS step,
  'each_metric' AS metric,
  CAST(each_metric AS DOUBLE) AS value,
  'checkpoint' AS source
FROM checkpoints
WHERE MEASURED(each_metric) IS NOT NULL AND step_number IS NOT NULL
