-- Every job at a glance: what was tuned and how, how long it took, what it trained on, and which checkpoint to deploy.
--
-- account: Label of the account that the row came from.
-- fine_tuning_job_id: Id of the job; unique within an account.
-- base_model: Base model that is tuned.
-- parent_job_id: The job that made that model, where it is itself a fine-tuned one of this account.
-- suffix: Suffix of the model's name: as asked for, else as in the name ft:model:org:suffix:id, or base.ft-id-suffix on
--   Azure.
-- method: As the job says (supervised, dpo, reinforcement); else reinforcement where the job has rewards, else supervised
--   where there are hyperparameters.
-- status: running, succeeded, failed, cancelled ...
-- created_at: When the job was created.
-- started_at: When training started: the event that says so, else the first logged step.
-- finished_at: When it ended; null while it runs.
-- duration_seconds: Seconds from creation to end, waiting in the queue included; null where that is below 0.
-- queue_seconds: Seconds from creation to started_at.
-- training_seconds: Seconds from started_at to the last logged step, else to the end.
-- n_epochs: Epochs, as a number; null for auto, as are the next ones.
-- batch_size: Examples in a batch.
-- learning_rate_multiplier: Factor on the learning rate.
-- beta: Weight of the penalty for moving away from the base model (DPO).
-- reasoning_effort: Reasoning effort (reinforcement runs).
-- compute_multiplier: Factor on the compute spent on exploring (reinforcement runs).
-- seed: Random seed.
-- fine_tuned_model: Name of the resulting model.
-- trained_tokens: Tokens trained on, as the job says.
-- billed_tokens: Tokens billed, as the job's last event about it says; null where none does.
-- checkpoints: Number of its checkpoints, dropped ones included.
-- evaluation_metric: The one metric that its checkpoints are compared by.
-- evidence: What that metric stands on: full_validation, validation_batches or training_only.
-- advice: deploy, keep_final, retrain, cannot_tell or not_finished: see best_checkpoints.
-- checkpoint_to_deploy: Name of the model that the advice means; null where there is none to advise.
-- best_checkpoint_id: Id of the best checkpoint that the host keeps; null where none can be compared.
-- best_evaluation_value: The value of that checkpoint.
-- final_evaluation_value: The value of the final checkpoint.
-- cost_of_final: How much worse the final checkpoint is; null where only training was measured.
-- best_generalization_loss: How far that best value lies above the lowest loss of the whole curve, relative to it.
-- final_generalization_loss: The same of the final checkpoint.
-- training_file: Id of the file trained on.
-- training_file_name: Name of that file; null where it was not read.
-- validation_file: Id of the file validated on.
-- validation_file_name: Name of that file; null where it was not read.
-- error_code: Error code of a job that failed.
-- error_message: What went wrong, in the host's words.
-- last_error: The job's last event of level error; else error_message.
-- metadata: Key-value pairs that the user attached, as a JSON object.

WITH parents AS (
  SELECT j.account, j.id AS fine_tuning_job_id, MAX(p.job_id) AS parent_job_id
  FROM jobs AS j
  JOIN (
    SELECT account, id AS job_id, fine_tuned_model AS name FROM jobs
    UNION ALL
    SELECT account, fine_tuning_job_id AS job_id, fine_tuned_model_checkpoint AS name FROM checkpoints
  ) AS p
    ON p.account = j.account AND p.name = j.model
  WHERE p.job_id <> j.id
  GROUP BY j.account, j.id
)

SELECT
  j.account,
  j.id AS fine_tuning_job_id,
  j.model AS base_model,
  p.parent_job_id,
  o.model_suffix AS suffix,
  COALESCE(o.job_method, b.method, o.guessed_method) AS method,
  j.status,
  j.created_at,
  t.training_began_at AS started_at,
  j.finished_at,
  CASE WHEN j.finished_at >= j.created_at THEN EPOCH(j.finished_at) - EPOCH(j.created_at) END AS duration_seconds,
  CASE
    WHEN t.training_began_at >= j.created_at
      THEN EPOCH(t.training_began_at) - EPOCH(j.created_at)
  END AS queue_seconds,
  CASE
    WHEN COALESCE(t.last_step_at, j.finished_at) >= t.training_began_at
      THEN EPOCH(COALESCE(t.last_step_at, j.finished_at)) - EPOCH(t.training_began_at)
  END AS training_seconds,
  o.epochs AS n_epochs,
  AS_NUMBER(j.hyperparameters__batch_size) AS batch_size,
  AS_NUMBER(j.hyperparameters__learning_rate_multiplier) AS learning_rate_multiplier,
  AS_NUMBER(j.hyperparameters__beta) AS beta,
  j.hyperparameters__reasoning_effort AS reasoning_effort,
  AS_NUMBER(j.hyperparameters__compute_multiplier) AS compute_multiplier,
  j.seed,
  j.fine_tuned_model,
  j.trained_tokens,
  t.billed_tokens,
  COALESCE(b.checkpoints, 0) AS checkpoints,
  b.evaluation_metric,
  b.evidence,
  b.advice,
  b.checkpoint_to_deploy,
  CASE WHEN b.evaluation_value IS NOT NULL THEN b.checkpoint_id END AS best_checkpoint_id,
  b.evaluation_value AS best_evaluation_value,
  b.final_evaluation_value,
  b.cost_of_final,
  b.generalization_loss AS best_generalization_loss,
  b.final_generalization_loss,
  j.training_file,
  f.filename AS training_file_name,
  j.validation_file,
  v.filename AS validation_file_name,
  j.error__code AS error_code,
  j.error__message AS error_message,
  COALESCE(t.last_message, j.error__message) AS last_error,
  j.metadata
FROM jobs AS j
JOIN _job_facts AS o
  ON o.account = j.account AND o.fine_tuning_job_id = j.id
LEFT JOIN best_checkpoints AS b
  ON b.account = j.account AND b.fine_tuning_job_id = j.id
LEFT JOIN _event_facts AS t
  ON t.account = j.account AND t.fine_tuning_job_id = j.id
LEFT JOIN parents AS p
  ON p.account = j.account AND p.fine_tuning_job_id = j.id
LEFT JOIN files AS f
  ON f.account = j.account AND f.id = j.training_file
LEFT JOIN files AS v
  ON v.account = j.account AND v.id = j.validation_file
