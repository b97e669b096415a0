-- Every checkpoint with its job: how good it is by the one metric that the job's checkpoints are compared by, how it
-- ranks, whether the host still keeps it, and whether the run was overfitting by then. A NaN or infinite metric counts
-- as none.
--
-- account: Label of the account that the row came from.
-- fine_tuning_job_id: Id of the job that made the checkpoint.
-- checkpoint_id: Id of the checkpoint; unique within an account.
-- fine_tuned_model_checkpoint: Name to deploy it by.
-- base_model: Base model that was tuned.
-- suffix: Suffix of the model's name: as asked for, else as in the name ft:model:org:suffix:id.
-- method: As the job says (supervised, dpo, reinforcement); else reinforcement where there are rewards and no losses,
--   else supervised where there are hyperparameters.
-- job_status: Status of the job: running, succeeded, failed, cancelled ...
-- job_created_at: When the job was created.
-- step_number: Step at which the checkpoint was made.
-- created_at: When it was trained; it may have become visible only at the job's end.
-- seconds_since_job_start: Seconds from the job's creation to the checkpoint.
-- train_loss: Loss on the training batch of its step, as the checkpoint itself has it (nats per token).
-- train_mean_token_accuracy: Share of training tokens predicted right, 0 to 1.
-- valid_loss: Loss on a validation batch at its step, as the checkpoint itself has it (nats per token).
-- valid_mean_token_accuracy: Share of tokens of the validation batch predicted right, 0 to 1.
-- full_valid_loss: Loss on the whole validation file, as the checkpoint itself has it (nats per token).
-- full_valid_mean_token_accuracy: Share of tokens of the whole validation file predicted right, 0 to 1.
-- train_mean_reward: Mean reward on training samples, as the checkpoint itself has it (reinforcement runs).
-- valid_mean_reward: Mean reward on a validation batch, as the checkpoint itself has it (reinforcement runs).
-- full_valid_mean_reward: Mean reward on the whole validation file, as the checkpoint itself has it (reinforcement
--   runs).
-- evaluation_metric: The one metric that the job's checkpoints are compared by: the first of full_valid_loss,
--   valid_loss, train_loss (reinforcement: full_valid_mean_reward, valid_mean_reward, train_mean_reward) that all of
--   them have, else the first that any has.
-- higher_is_better: Whether higher values of it are better, as rewards are; losses are not.
-- evaluation_value: The checkpoint's value of that metric; null where it has none, and then it does not rank.
-- evaluation_source: Where the value is from: checkpoint; event or result_file where it was borrowed from the same step
--   there (the worse one, where the step was logged more than once).
-- rank_in_job: 1 for the best value of the job, dropped checkpoints included; ties go to the earlier step.
-- is_best: Whether it is the one to deploy: the best-ranked of those that the host still keeps (of all, where it keeps
--   none).
-- is_final: Whether it is the job's fine_tuned_model; where no checkpoint is, the last step.
-- is_retained: Whether the host still listed it when the job's checkpoints were last read.
-- train_gap: Validation loss less train loss (reinforcement: train reward less validation reward): the more above 0, the
--   worse it generalises. Borrowed values included, the whole validation file before a batch of it.
-- train_ratio: Validation loss divided by train loss, borrowed values included; null where the train loss is missing or
--   not above 0.
-- overfitting_band: healthy (train_ratio below 1.2, or a validation loss below 0.05), watch (below 1.5), overfitting
--   (below 2), severe (from there, or a train loss of 0); null without a validation loss.
-- change_from_previous: evaluation_value less that of the job's previous checkpoint by step.

-- An item with each_loss, each_reward or each_value stands for one of each metric of that kind, in its place. USABLE is
-- null for NaN and infinity.
WITH event_values AS (
  SELECT
    c.account,
    c.id AS checkpoint_id,
    MAX(USABLE(e.data__each_loss)) AS each_loss,
    MIN(USABLE(e.data__each_reward)) AS each_reward
  FROM checkpoints AS c
  JOIN events AS e
    ON e.account = c.account
    AND e.fine_tuning_job_id = c.fine_tuning_job_id
    AND e.data__step = CAST(c.step_number AS DOUBLE)
  GROUP BY c.account, c.id
),

file_values AS (
  SELECT
    c.account,
    c.id AS checkpoint_id,
    MAX(USABLE(r.each_loss)) AS each_loss,
    MIN(USABLE(r.each_reward)) AS each_reward
  FROM checkpoints AS c
  JOIN result_metrics AS r
    ON r.account = c.account
    AND r.fine_tuning_job_id = c.fine_tuning_job_id
    AND r.step = c.step_number
  GROUP BY c.account, c.id
),

own_values AS (
  SELECT
    account,
    id AS checkpoint_id,
    fine_tuning_job_id,
    USABLE(metrics__each_value) AS each_value
  FROM checkpoints
),

-- What is known at the checkpoint's step: its own value, else the event's, else the result file's.
known_values AS (
  SELECT
    o.account,
    o.checkpoint_id,
    o.fine_tuning_job_id,
    COALESCE(o.each_value, e.each_value, f.each_value) AS each_value,
    CASE
      WHEN o.each_value IS NOT NULL THEN 'checkpoint'
      WHEN e.each_value IS NOT NULL THEN 'event'
      ELSE 'result_file'
    END AS each_value_source
  FROM own_values AS o
  LEFT JOIN event_values AS e
    ON e.account = o.account AND e.checkpoint_id = o.checkpoint_id
  LEFT JOIN file_values AS f
    ON f.account = o.account AND f.checkpoint_id = o.checkpoint_id
),

job_counts AS (
  SELECT
    account,
    fine_tuning_job_id,
    COUNT(*) AS checkpoints,
    COUNT(each_value) AS with_each_value
  FROM known_values
  GROUP BY account, fine_tuning_job_id
),

job_kinds AS (
  SELECT
    n.*,
    CASE
      WHEN j.method__type = 'reinforcement' THEN TRUE
      WHEN n.with_train_mean_reward + n.with_valid_mean_reward + n.with_full_valid_mean_reward > 0
        AND n.with_train_loss + n.with_valid_loss + n.with_full_valid_loss = 0 THEN TRUE
      ELSE FALSE
    END AS is_reinforcement,
    j.model AS base_model,
    j.fine_tuned_model,
    COALESCE(
      NULLIF(j.user_provided_suffix, ''),
      NULLIF(j.suffix, ''),
      CASE
        WHEN j.fine_tuned_model LIKE 'ft:%:%:%:%' THEN NULLIF(SPLIT_PART(COALESCE(j.fine_tuned_model, ''), ':', 4), '')
      END
    ) AS suffix,
    NULLIF(j.method__type, '') AS method__type,
    COALESCE(
      j.hyperparameters__n_epochs, j.hyperparameters__batch_size, j.hyperparameters__learning_rate_multiplier
    ) AS any_hyperparameter,
    j.status AS job_status,
    j.created_at AS job_created_at,
    j.checkpoints_listed_at
  FROM job_counts AS n
  LEFT JOIN jobs AS j
    ON j.account = n.account AND j.id = n.fine_tuning_job_id
),

job_metrics AS (
  SELECT
    k.*,
    CASE
      WHEN is_reinforcement AND with_each_reward = checkpoints THEN 'each_reward'
      WHEN is_reinforcement AND with_each_reward > 0 THEN 'each_reward'
      WHEN is_reinforcement THEN NULL
      WHEN with_each_loss = checkpoints THEN 'each_loss'
      WHEN with_each_loss > 0 THEN 'each_loss'
    END AS evaluation_metric
  FROM job_kinds AS k
),

evaluated AS (
  SELECT
    c.account,
    c.fine_tuning_job_id,
    c.id AS checkpoint_id,
    c.fine_tuned_model_checkpoint,
    m.base_model,
    m.suffix,
    CASE
      WHEN m.method__type IS NOT NULL THEN m.method__type
      WHEN m.is_reinforcement THEN 'reinforcement'
      WHEN m.any_hyperparameter IS NOT NULL THEN 'supervised'
    END AS method,
    m.job_status,
    m.job_created_at,
    c.step_number,
    c.created_at,
    c.metrics__train_loss AS train_loss,
    c.metrics__train_mean_token_accuracy AS train_mean_token_accuracy,
    c.metrics__valid_loss AS valid_loss,
    c.metrics__valid_mean_token_accuracy AS valid_mean_token_accuracy,
    c.metrics__full_valid_loss AS full_valid_loss,
    c.metrics__full_valid_mean_token_accuracy AS full_valid_mean_token_accuracy,
    c.metrics__train_mean_reward AS train_mean_reward,
    c.metrics__valid_mean_reward AS valid_mean_reward,
    c.metrics__full_valid_mean_reward AS full_valid_mean_reward,
    m.is_reinforcement,
    m.evaluation_metric,
    CASE m.evaluation_metric WHEN 'each_value' THEN v.each_value END AS evaluation_value,
    CASE m.evaluation_metric WHEN 'each_value' THEN v.each_value_source END AS source_if_any,
    v.train_loss AS known_train_loss,
    COALESCE(v.full_valid_loss, v.valid_loss) AS known_valid_loss,
    v.train_mean_reward AS known_train_reward,
    COALESCE(v.full_valid_mean_reward, v.valid_mean_reward) AS known_valid_reward,
    CASE WHEN c.fine_tuned_model_checkpoint = m.fine_tuned_model THEN 0 ELSE 1 END AS not_the_model,
    CASE
      WHEN c.last_listed_at < COALESCE(
        m.checkpoints_listed_at, MAX(c.last_listed_at) OVER (PARTITION BY c.account, c.fine_tuning_job_id)
      ) THEN FALSE
      ELSE TRUE
    END AS is_retained
  FROM checkpoints AS c
  JOIN known_values AS v
    ON v.account = c.account AND v.checkpoint_id = c.id
  LEFT JOIN job_metrics AS m
    ON m.account = c.account AND m.fine_tuning_job_id = c.fine_tuning_job_id
),

-- Smaller is better in either kind of run; null sorts last everywhere.
scored AS (
  SELECT
    e.*,
    CASE WHEN e.evaluation_value IS NULL THEN 1 ELSE 0 END AS unranked,
    CASE WHEN e.evaluation_value IS NULL OR NOT e.is_retained THEN 1 ELSE 0 END AS not_deployable,
    CASE WHEN e.is_reinforcement THEN -COALESCE(e.evaluation_value, 0) ELSE COALESCE(e.evaluation_value, 0) END AS score,
    COALESCE(e.step_number, -1) AS step_order
  FROM evaluated AS e
),

ranked AS (
  SELECT
    s.*,
    ROW_NUMBER() OVER (
      PARTITION BY account, fine_tuning_job_id ORDER BY unranked, score, step_order, created_at, checkpoint_id
    ) AS place,
    ROW_NUMBER() OVER (
      PARTITION BY account, fine_tuning_job_id
      ORDER BY not_deployable, unranked, score, step_order, created_at, checkpoint_id
    ) AS place_to_deploy,
    ROW_NUMBER() OVER (
      PARTITION BY account, fine_tuning_job_id
      ORDER BY not_the_model, step_order DESC, created_at DESC, checkpoint_id DESC
    ) AS place_from_end,
    MAX(CASE WHEN is_retained THEN 1 ELSE 0 END) OVER (PARTITION BY account, fine_tuning_job_id) AS any_retained,
    LAG(evaluation_value) OVER (
      PARTITION BY account, fine_tuning_job_id ORDER BY step_order, created_at, checkpoint_id
    ) AS previous_value
  FROM scored AS s
)

SELECT
  account,
  fine_tuning_job_id,
  checkpoint_id,
  fine_tuned_model_checkpoint,
  base_model,
  suffix,
  method,
  job_status,
  job_created_at,
  step_number,
  created_at,
  EPOCH(created_at) - EPOCH(job_created_at) AS seconds_since_job_start,
  train_loss,
  train_mean_token_accuracy,
  valid_loss,
  valid_mean_token_accuracy,
  full_valid_loss,
  full_valid_mean_token_accuracy,
  train_mean_reward,
  valid_mean_reward,
  full_valid_mean_reward,
  evaluation_metric,
  CASE WHEN evaluation_metric IS NOT NULL THEN is_reinforcement END AS higher_is_better,
  evaluation_value,
  CASE WHEN evaluation_value IS NOT NULL THEN source_if_any END AS evaluation_source,
  CASE WHEN unranked = 0 THEN place END AS rank_in_job,
  CASE WHEN place_to_deploy = 1 AND unranked = 0 AND (is_retained OR any_retained = 0) THEN TRUE ELSE FALSE END
    AS is_best,
  CASE WHEN place_from_end = 1 THEN TRUE ELSE FALSE END AS is_final,
  is_retained,
  CASE
    WHEN is_reinforcement THEN known_train_reward - known_valid_reward
    ELSE known_valid_loss - known_train_loss
  END AS train_gap,
  CASE WHEN known_train_loss > 0 THEN known_valid_loss / known_train_loss END AS train_ratio,
  CASE
    WHEN known_valid_loss IS NULL THEN NULL
    WHEN known_valid_loss < 0.05 THEN 'healthy'
    WHEN known_train_loss IS NULL THEN NULL
    WHEN known_train_loss <= 0 THEN 'severe'
    WHEN known_valid_loss / known_train_loss < 1.2 THEN 'healthy'
    WHEN known_valid_loss / known_train_loss < 1.5 THEN 'watch'
    WHEN known_valid_loss / known_train_loss < 2 THEN 'overfitting'
    ELSE 'severe'
  END AS overfitting_band,
  evaluation_value - previous_value AS change_from_previous
FROM ranked
