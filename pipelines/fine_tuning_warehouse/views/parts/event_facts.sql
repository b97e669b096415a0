-- What the events of a job say of the whole job.
WITH times AS (
  SELECT
    account,
    fine_tuning_job_id,
    MIN(CASE WHEN data__step >= 0 THEN created_at END) AS first_step_at,
    MAX(CASE WHEN data__step >= 0 THEN created_at END) AS last_step_at,
    MIN(CASE WHEN message LIKE '%ob started%' OR message LIKE '%raining started%' THEN created_at END) AS began_at,
    MAX(CASE WHEN message LIKE 'Training tokens billed: %' THEN created_at END) AS billed_at,
    MAX(CASE WHEN level = 'error' THEN created_at END) AS failed_at
  FROM events
  GROUP BY account, fine_tuning_job_id
),

-- Of the events at those two times, one each.
messages AS (
  SELECT
    e.account,
    e.fine_tuning_job_id,
    MAX(
      CASE
        WHEN e.created_at = t.billed_at AND e.message LIKE 'Training tokens billed: %'
          THEN AS_NUMBER(REPLACE(TRIM(SPLIT_PART(e.message, ':', 2)), ',', ''))
      END
    ) AS billed,
    MAX(CASE WHEN e.created_at = t.failed_at AND e.level = 'error' THEN e.message END) AS last_message
  FROM events AS e
  JOIN times AS t
    ON t.account = e.account AND t.fine_tuning_job_id = e.fine_tuning_job_id
  WHERE e.message LIKE 'Training tokens billed: %' OR e.level = 'error'
  GROUP BY e.account, e.fine_tuning_job_id
)

SELECT
  t.account,
  t.fine_tuning_job_id,
  COALESCE(t.began_at, t.first_step_at) AS training_began_at,
  t.last_step_at,
  CAST(m.billed AS BIGINT) AS billed_tokens,
  m.last_message
FROM times AS t
LEFT JOIN messages AS m
  ON m.account = t.account AND m.fine_tuning_job_id = t.fine_tuning_job_id
