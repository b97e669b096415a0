-- What each job cost: its tokens, or its training time, at the prices of a table `prices` that you fill. No sync touches
-- that table. It has a row a base model: base_model, per_million_tokens, per_training_hour (either may be null), currency.
--
-- account: Label of the account that the row came from.
-- fine_tuning_job_id: Id of the job.
-- base_model: Base model that was tuned.
-- method: supervised, dpo or reinforcement.
-- status: running, succeeded, failed, cancelled ...
-- created_at: When the job was created.
-- month: The month (UTC) of its end, else of its creation, as its first day.
-- tokens: Tokens billed, as the job's events say; else those trained on.
-- training_hours: Hours from the start of training to the last step.
-- per_million_tokens: Price of a million tokens.
-- per_training_hour: Price of an hour of training.
-- cost: What that comes to; null without a price.
-- currency: Currency of the prices.

WITH known AS (
  SELECT
    o.*,
    COALESCE(o.billed_tokens, o.trained_tokens) AS any_tokens,
    CAST(o.training_seconds AS DOUBLE) / 3600 AS hours,
    p.per_million_tokens,
    p.per_training_hour,
    p.currency
  FROM job_overview AS o
  LEFT JOIN prices AS p
    ON p.base_model = o.base_model
)

SELECT
  account,
  fine_tuning_job_id,
  base_model,
  method,
  status,
  created_at,
  CAST(DATE_TRUNC('month', COALESCE(finished_at, created_at) AT TIME ZONE 'UTC') AS DATE) AS month,
  any_tokens AS tokens,
  hours AS training_hours,
  CAST(per_million_tokens AS DOUBLE) AS per_million_tokens,
  CAST(per_training_hour AS DOUBLE) AS per_training_hour,
  CASE
    WHEN per_million_tokens IS NULL AND per_training_hour IS NULL THEN NULL
    ELSE COALESCE(CAST(per_million_tokens AS DOUBLE) * any_tokens / 1000000, 0)
      + COALESCE(CAST(per_training_hour AS DOUBLE) * hours, 0)
  END AS cost,
  currency
FROM known
