-- One row a job and step: each metric as it was logged last, by an event or else in a result file. The latest event
-- counts, and the newest file. each_measure_from is 1 for an event, 2 for a file. The steps of checkpoints are here too.
WITH logged AS NOT MATERIALIZED (
  SELECT
    account,
    fine_tuning_job_id,
    CAST(CASE WHEN data__step BETWEEN 0 AND 1e15 THEN data__step END AS BIGINT) AS step,
    1 AS origin,
    id AS logged_as,
    created_at AS logged_at,
    data__total_steps AS total_steps,
    USABLE(data__each_value) AS each_value,
    USABLE(data__each_accuracy) AS each_accuracy
  FROM events
  WHERE data__step BETWEEN 0 AND 1e15 AND data__step <= FLOOR(data__step)

  UNION ALL

  SELECT
    account,
    fine_tuning_job_id,
    step,
    2 AS origin,
    file_id AS logged_as,
    NULL AS logged_at,
    NULL AS total_steps,
    USABLE(each_value) AS each_value,
    USABLE(full_valid_mean_token_accuracy) AS full_valid_mean_token_accuracy,
    USABLE(valid_mean_token_accuracy) AS valid_mean_token_accuracy,
    USABLE(COALESCE(train_mean_token_accuracy, train_accuracy)) AS train_mean_token_accuracy
  FROM result_metrics
  WHERE step >= 0
),

-- Steps that were logged more than once: after a restart, or in two files. There are few of them, if any.
repeated AS NOT MATERIALIZED (
  SELECT account, fine_tuning_job_id, step
  FROM logged
  GROUP BY account, fine_tuning_job_id, step
  HAVING COUNT(CASE WHEN origin = 1 THEN 1 END) > 1 OR COUNT(CASE WHEN origin = 2 THEN 1 END) > 1
),

numbered AS (
  SELECT
    l.account,
    l.fine_tuning_job_id,
    l.step,
    l.origin,
    l.total_steps,
    l.each_measure,
    ROW_NUMBER() OVER (
      PARTITION BY l.account, l.fine_tuning_job_id, l.step, l.origin
      ORDER BY
        COALESCE(l.logged_at, f.created_at) DESC,
        STRPOS(COALESCE(j.result_files, ''), l.logged_as) DESC,
        l.logged_as DESC
    ) AS nth
  FROM logged AS l
  JOIN repeated AS r
    ON r.account = l.account AND r.fine_tuning_job_id = l.fine_tuning_job_id AND r.step = l.step
  LEFT JOIN files AS f
    ON f.account = l.account AND f.id = l.logged_as
  LEFT JOIN jobs AS j
    ON j.account = l.account AND j.id = l.fine_tuning_job_id
),

-- The number of the row that counts, for each metric.
counting AS (
  SELECT
    n.*,
    MIN(CASE WHEN each_measure IS NOT NULL THEN nth END) OVER (PARTITION BY account, fine_tuning_job_id, step, origin)
      AS nth_each_measure
  FROM numbered AS n
),

latest AS (
  SELECT
    l.account,
    l.fine_tuning_job_id,
    l.step,
    l.origin,
    l.total_steps,
    CASE WHEN r.step IS NULL THEN l.each_measure END AS each_measure
  FROM logged AS l
  LEFT JOIN repeated AS r
    ON r.account = l.account AND r.fine_tuning_job_id = l.fine_tuning_job_id AND r.step = l.step

  UNION ALL

  SELECT
    account,
    fine_tuning_job_id,
    step,
    origin,
    total_steps,
    CASE WHEN nth = nth_each_measure THEN each_measure END AS each_measure
  FROM counting

  UNION ALL

  SELECT
    account,
    fine_tuning_job_id,
    COALESCE(step_number, -1) AS step,
    3 AS origin,
    NULL AS total_steps,
    NULL AS each_measure
  FROM checkpoints
)

SELECT
  account,
  fine_tuning_job_id,
  step,
  MAX(total_steps) AS total_steps,
  COALESCE(MAX(CASE WHEN origin = 1 THEN each_measure END), MAX(CASE WHEN origin = 2 THEN each_measure END))
    AS each_measure,
  CASE
    WHEN MAX(CASE WHEN origin = 1 THEN each_measure END) IS NOT NULL THEN 1
    WHEN MAX(CASE WHEN origin = 2 THEN each_measure END) IS NOT NULL THEN 2
  END AS each_measure_from
FROM latest
GROUP BY account, fine_tuning_job_id, step
