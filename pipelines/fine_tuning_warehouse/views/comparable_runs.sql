-- Runs that can be compared, since they have the same validation file, metric and method: ranked by their best
-- checkpoint, with their hyperparameters side by side.
--
-- account: Label of the account that the row came from.
-- validation_file: Id of the validation file that the runs have in common.
-- validation_file_name: Name of that file; null where it was not read.
-- evaluation_metric: The metric that they are compared by.
-- method: supervised, dpo or reinforcement.
-- runs: How many runs there are to compare.
-- rank: 1 for the best of them; equal values have the same rank.
-- fine_tuning_job_id: Id of the job.
-- base_model: Base model that was tuned.
-- suffix: Suffix of the model's name.
-- created_at: When the job was created.
-- evaluation_value: The value of its best checkpoint that the host keeps.
-- distance_to_best: How much worse that is than the best run; 0 for the best.
-- n_epochs: Epochs; null for auto, as are the next ones.
-- batch_size: Examples in a batch.
-- learning_rate_multiplier: Factor on the learning rate.
-- beta: Weight of the penalty for moving away from the base model (DPO).
-- reasoning_effort: Reasoning effort (reinforcement runs).
-- compute_multiplier: Factor on the compute spent on exploring (reinforcement runs).
-- seed: Random seed.
-- training_file_name: Name of the file trained on.
-- trained_tokens: Tokens trained on.
-- checkpoint_to_deploy: Name of the model that the advice means.

WITH scored AS (
  SELECT
    o.*,
    CASE WHEN o.evaluation_metric LIKE '%reward' THEN -o.best_evaluation_value ELSE o.best_evaluation_value END AS score
  FROM job_overview AS o
  WHERE o.best_evaluation_value IS NOT NULL AND o.validation_file IS NOT NULL AND o.evidence <> 'training_only'
)

SELECT
  account,
  validation_file,
  validation_file_name,
  evaluation_metric,
  method,
  COUNT(*) OVER (PARTITION BY account, validation_file, evaluation_metric, method) AS runs,
  RANK() OVER (PARTITION BY account, validation_file, evaluation_metric, method ORDER BY score) AS rank,
  fine_tuning_job_id,
  base_model,
  suffix,
  created_at,
  best_evaluation_value AS evaluation_value,
  score - MIN(score) OVER (PARTITION BY account, validation_file, evaluation_metric, method) AS distance_to_best,
  n_epochs,
  batch_size,
  learning_rate_multiplier,
  beta,
  reasoning_effort,
  compute_multiplier,
  seed,
  training_file_name,
  trained_tokens,
  checkpoint_to_deploy
FROM scored
