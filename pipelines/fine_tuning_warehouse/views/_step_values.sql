-- One row a job and step: each metric as it was measured last. The latest event counts before the newest result file,
-- and that before the checkpoint. each_measure_from is 1 for an event, 2 for a file, 3 for a checkpoint.
WITH logged AS (
  SELECT
    account,
    fine_tuning_job_id,
    CAST(CASE WHEN data__step BETWEEN 0 AND 1e15 THEN data__step END AS BIGINT) AS step,
    1 AS origin,
    created_at AS logged_at,
    0 AS place_in_job,
    id AS logged_as,
    data__total_steps AS total_steps,
    USABLE(data__each_value) AS each_value,
    USABLE(data__train_mean_token_accuracy) AS train_mean_token_accuracy,
    USABLE(data__valid_mean_token_accuracy) AS valid_mean_token_accuracy,
    USABLE(data__full_valid_mean_token_accuracy) AS full_valid_mean_token_accuracy
  FROM events
  WHERE data__step BETWEEN 0 AND 1e15 AND data__step = FLOOR(data__step)

  UNION ALL

  SELECT
    r.account,
    r.fine_tuning_job_id,
    r.step,
    2 AS origin,
    f.created_at AS logged_at,
    STRPOS(COALESCE(j.result_files, ''), r.file_id) AS place_in_job,
    r.file_id AS logged_as,
    NULL AS total_steps,
    USABLE(r.each_value) AS each_value,
    USABLE(COALESCE(r.train_mean_token_accuracy, r.train_accuracy)) AS train_mean_token_accuracy,
    USABLE(r.valid_mean_token_accuracy) AS valid_mean_token_accuracy,
    USABLE(r.full_valid_mean_token_accuracy) AS full_valid_mean_token_accuracy
  FROM result_metrics AS r
  LEFT JOIN files AS f
    ON f.account = r.account AND f.id = r.file_id
  LEFT JOIN jobs AS j
    ON j.account = r.account AND j.id = r.fine_tuning_job_id
  WHERE r.step >= 0

  UNION ALL

  SELECT
    account,
    fine_tuning_job_id,
    COALESCE(step_number, -1) AS step,
    3 AS origin,
    created_at AS logged_at,
    0 AS place_in_job,
    id AS logged_as,
    NULL AS total_steps,
    USABLE(metrics__each_value) AS each_value,
    USABLE(metrics__train_mean_token_accuracy) AS train_mean_token_accuracy,
    USABLE(metrics__valid_mean_token_accuracy) AS valid_mean_token_accuracy,
    USABLE(metrics__full_valid_mean_token_accuracy) AS full_valid_mean_token_accuracy
  FROM checkpoints
),

numbered AS (
  SELECT
    l.*,
    ROW_NUMBER() OVER (
      PARTITION BY account, fine_tuning_job_id, step ORDER BY origin, logged_at DESC, place_in_job DESC, logged_as DESC
    ) AS nth
  FROM logged AS l
),

-- The number of the row that counts, for each metric.
found AS (
  SELECT
    n.*,
    MIN(CASE WHEN each_measure IS NOT NULL THEN nth END) OVER (PARTITION BY account, fine_tuning_job_id, step)
      AS each_measure_nth
  FROM numbered AS n
)

SELECT
  account,
  fine_tuning_job_id,
  step,
  MAX(total_steps) AS total_steps,
  MAX(CASE WHEN nth = each_measure_nth THEN each_measure END) AS each_measure,
  MAX(CASE WHEN nth = each_measure_nth THEN origin END) AS each_measure_from
FROM found
GROUP BY account, fine_tuning_job_id, step
