-- One row a job and step, one column a metric: the latest event's value, else the newest result file's, else the
-- checkpoint's. NaN, infinity, and a loss or accuracy below 0 are null.
--
-- account: Label of the account that the row came from.
-- fine_tuning_job_id: Id of the job.
-- step: Training step.
-- epoch: Epochs trained by then; null where the host does not say how many there are.
-- share: Share of the whole run, 0 to 1.
-- tokens: Tokens trained on by then: that share of the job's trained_tokens.
-- train_loss: Loss on the training batch of the step (nats per token).
-- train_mean_token_accuracy: Share of training tokens predicted right, 0 to 1.
-- valid_loss: Loss on a validation batch (nats per token).
-- valid_mean_token_accuracy: Share of tokens of the validation batch predicted right, 0 to 1.
-- full_valid_loss: Loss on the whole validation file (nats per token).
-- full_valid_mean_token_accuracy: Share of tokens of the whole validation file predicted right, 0 to 1.
-- train_mean_reward: Mean reward on training samples (reinforcement runs).
-- valid_mean_reward: Mean reward on a validation batch (reinforcement runs).
-- full_valid_mean_reward: Mean reward on the whole validation file (reinforcement runs).

WITH own AS (
  SELECT account, fine_tuning_job_id, step_number AS step, MAX(USABLE(metrics__each_measure)) AS each_measure
  FROM checkpoints
  WHERE step_number >= 0
  GROUP BY account, fine_tuning_job_id, step_number
),

run AS (
  SELECT
    s.account,
    s.fine_tuning_job_id,
    s.step,
    COALESCE(
      MAX(s.total_steps) OVER (PARTITION BY s.account, s.fine_tuning_job_id),
      CAST(MAX(s.step) OVER (PARTITION BY s.account, s.fine_tuning_job_id) AS DOUBLE)
    ) AS steps,
    COALESCE(s.each_measure, o.each_measure) AS each_measure
  FROM _step_values AS s
  LEFT JOIN own AS o
    ON o.account = s.account AND o.fine_tuning_job_id = s.fine_tuning_job_id AND o.step = s.step
  WHERE s.step >= 0
)

SELECT
  r.account,
  r.fine_tuning_job_id,
  r.step,
  CASE WHEN r.steps > 0 THEN r.step * j.epochs / r.steps END AS epoch,
  CASE WHEN r.steps > 0 THEN CAST(r.step AS DOUBLE) / r.steps END AS share,
  CASE WHEN r.steps > 0 THEN r.step * CAST(j.trained_tokens AS DOUBLE) / r.steps END AS tokens,
  r.train_loss,
  r.train_mean_token_accuracy,
  r.valid_loss,
  r.valid_mean_token_accuracy,
  r.full_valid_loss,
  r.full_valid_mean_token_accuracy,
  r.train_mean_reward,
  r.valid_mean_reward,
  r.full_valid_mean_reward
FROM run AS r
LEFT JOIN _job_facts AS j
  ON j.account = r.account AND j.fine_tuning_job_id = r.fine_tuning_job_id
