-- The best checkpoint of each job among those that the host still keeps, what to do about it, and on what evidence.
--
-- account: Label of the account that the row came from.
-- fine_tuning_job_id: Id of the job; unique within an account.
-- base_model: Base model that was tuned.
-- suffix: Suffix of the model's name.
-- method: supervised, dpo or reinforcement.
-- job_status: Status of the job: running, succeeded, failed, cancelled ...
-- job_created_at: When the job was created.
-- advice: deploy (the checkpoint), keep_final (no clear difference), retrain (a clearly better step has no checkpoint
--   that the host keeps), cannot_tell, or not_finished (the job still runs, or failed).
-- reason: Why, in words.
-- checkpoint_to_deploy: Name of the model that the advice means; null where there is none to advise.
-- is_callable: True if the host's last listing of models contains that model, false if not, null if unknown: see
--   model_status.
-- checkpoints: Checkpoints of the job, dropped ones included.
-- checkpoint_id: Id of the best checkpoint by the metric among those that the host keeps; where none has a metric, of the
--   final one that it keeps.
-- fine_tuned_model_checkpoint: Its name.
-- step_number: Step at which it was made.
-- evaluation_metric: The one metric that the job's checkpoints are compared by.
-- evidence: What that metric stands on: full_validation, validation_batches or training_only.
-- higher_is_better: Whether higher values of it are better, as rewards are; losses are not.
-- evaluation_value: The checkpoint's value of that metric; null where there is none.
-- evaluation_source: Where the value is from: checkpoint, event or result_file.
-- final_checkpoint_id: Id of the job's final checkpoint.
-- final_evaluation_value: The final checkpoint's value of the metric.
-- cost_of_final: How much worse the final checkpoint is, never negative; null where either value is missing, and where
--   only training was measured.
-- noise: How far the metric scatters in this job (one standard deviation); null for fewer than 3 values.
-- is_clear: Whether cost_of_final exceeds noise times the square root of 2; null where either is missing.
-- lowest_value_ever: The best value on the whole curve of the job: the lowest loss, the highest reward.
-- lowest_step_ever: The first step with that value.
-- generalization_loss: evaluation_value divided by lowest_value_ever, less 1; null for rewards.
-- final_generalization_loss: The same of the final checkpoint.
-- suggested_n_epochs: Epochs that end nearest to lowest_step_ever; null where the host does not say how many there were,
--   and where only training was measured.
-- train_gap: How much worse the checkpoint is in validation than in training; above 0.10 is a warning for rewards.
-- is_retained: Whether the host still keeps the checkpoint; false only where it keeps none of the job's.
-- listed_at: When the job's checkpoints were last listed: is_retained is as of then.

SELECT
  a.account,
  a.fine_tuning_job_id,
  a.base_model,
  a.suffix,
  a.method,
  a.job_status,
  a.job_created_at,
  a.advice,
  a.reason
  || CASE WHEN NOT m.is_callable THEN ' The host does not list this model: it may be deleted or retired.' ELSE '' END
    AS reason,
  a.checkpoint_to_deploy,
  m.is_callable,
  a.checkpoints,
  a.checkpoint_id,
  a.fine_tuned_model_checkpoint,
  a.step_number,
  a.evaluation_metric,
  a.evidence,
  a.higher_is_better,
  a.evaluation_value,
  a.evaluation_source,
  a.final_checkpoint_id,
  a.final_evaluation_value,
  a.cost_of_final,
  a.noise,
  a.is_clear,
  a.lowest_value_ever,
  a.lowest_step_ever,
  a.generalization_loss,
  a.final_generalization_loss,
  a.suggested_n_epochs,
  a.train_gap,
  a.is_retained,
  a.listed_at
FROM _advice AS a
LEFT JOIN model_status AS m
  ON m.account = a.account AND m.fine_tuning_job_id = a.fine_tuning_job_id AND m.model = a.checkpoint_to_deploy
