-- Every job at a glance: what was tuned, how long it took, what it trained on, and how good its checkpoints are.
--
-- account: Label of the account that the row came from.
-- fine_tuning_job_id: Id of the job; unique within an account.
-- base_model: Base model that is tuned.
-- suffix: Suffix of the model's name: as asked for, else as in the name ft:model:org:suffix:id.
-- method: As the job says (supervised, dpo, reinforcement); else reinforcement where its checkpoints have rewards and no
--   losses, else supervised where there are hyperparameters.
-- status: running, succeeded, failed, cancelled ...
-- created_at: When the job was created.
-- finished_at: When it ended; null while it runs.
-- duration_seconds: Seconds from creation to end, waiting in the queue included.
-- fine_tuned_model: Name of the resulting model.
-- trained_tokens: Billable tokens trained on.
-- checkpoints: Number of its checkpoints, dropped ones included.
-- evaluation_metric: The one metric that its checkpoints are compared by.
-- best_checkpoint_id: Id of the checkpoint to deploy; null where none can be compared.
-- best_evaluation_value: The value of that checkpoint.
-- final_evaluation_value: The value of the final checkpoint.
-- overfitting_band: How the run ended: the final checkpoint's band (healthy, watch, overfitting, severe); null without a
--   validation loss.
-- training_file: Id of the file trained on.
-- training_file_name: Name of that file; null where it was not read.
-- error_code: Error code of a job that failed.
-- error_message: What went wrong, in the host's words.

WITH totals AS (
  SELECT
    account,
    fine_tuning_job_id,
    COUNT(*) AS checkpoints,
    MAX(evaluation_metric) AS evaluation_metric,
    MAX(method) AS method,
    MAX(CASE WHEN is_best THEN checkpoint_id END) AS best_checkpoint_id,
    MAX(CASE WHEN is_best THEN evaluation_value END) AS best_evaluation_value,
    MAX(CASE WHEN is_final THEN evaluation_value END) AS final_evaluation_value,
    MAX(CASE WHEN is_final THEN overfitting_band END) AS overfitting_band
  FROM checkpoint_history
  GROUP BY account, fine_tuning_job_id
)

SELECT
  j.account,
  j.id AS fine_tuning_job_id,
  j.model AS base_model,
  COALESCE(
    NULLIF(j.user_provided_suffix, ''),
    NULLIF(j.suffix, ''),
    CASE
      WHEN j.fine_tuned_model LIKE 'ft:%:%:%:%' THEN NULLIF(SPLIT_PART(COALESCE(j.fine_tuned_model, ''), ':', 4), '')
    END
  ) AS suffix,
  CASE
    WHEN NULLIF(j.method__type, '') IS NOT NULL THEN j.method__type
    WHEN t.method IS NOT NULL THEN t.method
    WHEN COALESCE(
      j.hyperparameters__n_epochs, j.hyperparameters__batch_size, j.hyperparameters__learning_rate_multiplier
    ) IS NOT NULL THEN 'supervised'
  END AS method,
  j.status,
  j.created_at,
  j.finished_at,
  EPOCH(j.finished_at) - EPOCH(j.created_at) AS duration_seconds,
  j.fine_tuned_model,
  j.trained_tokens,
  COALESCE(t.checkpoints, 0) AS checkpoints,
  t.evaluation_metric,
  t.best_checkpoint_id,
  t.best_evaluation_value,
  t.final_evaluation_value,
  t.overfitting_band,
  j.training_file,
  f.filename AS training_file_name,
  j.error__code AS error_code,
  j.error__message AS error_message
FROM jobs AS j
LEFT JOIN totals AS t
  ON t.account = j.account AND t.fine_tuning_job_id = j.id
LEFT JOIN files AS f
  ON f.account = j.account AND f.id = j.training_file
