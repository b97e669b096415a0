-- What a job says of itself, in the form that the views need it.
SELECT
  account,
  id AS fine_tuning_job_id,
  model AS base_model,
  COALESCE(
    NULLIF(user_provided_suffix, ''),
    NULLIF(suffix, ''),
    CASE
      WHEN fine_tuned_model LIKE 'ft:%:%:%:%' THEN NULLIF(SPLIT_PART(COALESCE(fine_tuned_model, ''), ':', 4), '')
      -- Azure: base.ft-<32 hexadecimal digits>-suffix
      WHEN REGEXP_MATCHES(fine_tuned_model, '[.]ft-[0-9a-fA-F]{32}-.')
        THEN SUBSTRING(SPLIT_PART(COALESCE(fine_tuned_model, ''), '.ft-', 2), 34)
    END
  ) AS model_suffix,
  NULLIF(method__type, '') AS job_method,
  CASE
    WHEN COALESCE(
      hyperparameters__n_epochs, hyperparameters__batch_size, hyperparameters__learning_rate_multiplier
    ) IS NOT NULL THEN 'supervised'
  END AS guessed_method,
  status,
  CASE
    WHEN status IN ('succeeded', 'completed') OR status IS NULL THEN 'finished'
    WHEN status IN ('failed', 'error', 'user_error', 'cancelled', 'canceled', 'expired') THEN 'ended_early'
    WHEN status IN (
      'validating_files', 'queued', 'running', 'paused', 'pausing', 'resuming', 'pending', 'canceling', 'cancelling',
      'notRunning'
    ) OR finished_at IS NULL THEN 'running'
    ELSE 'finished'
  END AS stage,
  created_at,
  finished_at,
  fine_tuned_model,
  trained_tokens,
  AS_NUMBER(hyperparameters__n_epochs) AS epochs,
  checkpoints_listed_at
FROM jobs
