-- Every checkpoint with its job: how good it is by the one metric that the job's checkpoints are compared by, how it
-- ranks, whether the host still keeps it, and how noisy that metric is. A loss or an accuracy below 0, NaN and infinity
-- do not count as measured.
--
-- account: Label of the account that the row came from.
-- fine_tuning_job_id: Id of the job that made the checkpoint.
-- checkpoint_id: Id of the checkpoint; unique within an account.
-- fine_tuned_model_checkpoint: Name to deploy it by.
-- base_model: Base model that was tuned.
-- suffix: Suffix of the model's name: as asked for, else as in the name ft:model:org:suffix:id, or base.ft-id-suffix on
--   Azure.
-- method: As the job says (supervised, dpo, reinforcement); else reinforcement where the job has rewards, else supervised
--   where there are hyperparameters.
-- job_status: Status of the job: running, succeeded, failed, cancelled ...
-- stage: What that status means here: finished, running, or ended_early (failed, cancelled).
-- job_created_at: When the job was created.
-- step_number: Step at which the checkpoint was made.
-- created_at: When it was trained; it may have become visible only at the job's end.
-- seconds_since_job_start: Seconds from the job's creation to the checkpoint; null where that is below 0.
-- train_loss: Loss on the training batch of its step, as the checkpoint itself has it (nats per token).
-- train_mean_token_accuracy: Share of training tokens predicted right, 0 to 1: the checkpoint's own, else that of the
--   event or the result file of its step.
-- valid_loss: Loss on a validation batch at its step, as the checkpoint itself has it (nats per token).
-- valid_mean_token_accuracy: Share of tokens of the validation batch predicted right, 0 to 1, from the same sources.
-- full_valid_loss: Loss on the whole validation file, as the checkpoint itself has it (nats per token).
-- full_valid_mean_token_accuracy: Share of tokens of the whole validation file predicted right, 0 to 1, from the same
--   sources.
-- train_mean_reward: Mean reward on training samples, as the checkpoint itself has it (reinforcement runs).
-- valid_mean_reward: Mean reward on a validation batch, as the checkpoint itself has it (reinforcement runs).
-- full_valid_mean_reward: Mean reward on the whole validation file, as the checkpoint itself has it (reinforcement
--   runs).
-- evaluation_metric: The one metric that the job's checkpoints are compared by: the first of full_valid_loss, valid_loss
--   (reinforcement: full_valid_mean_reward, valid_mean_reward) that all of them have, else the first that any has, else
--   train_loss (train_mean_reward).
-- evidence: What that metric stands on: full_validation, validation_batches or training_only.
-- higher_is_better: Whether higher values of it are better, as rewards are; losses are not.
-- evaluation_value: The checkpoint's value of that metric; null where it has none, and then it does not rank.
-- evaluation_source: Where the value is from: checkpoint; event or result_file where it was borrowed from the same step
--   there (the latest event, the newest file).
-- is_diverged: Whether a loss or reward of the checkpoint itself is NaN or infinite: such a checkpoint does not rank.
-- rank_in_job: 1 for the best value of the job, dropped checkpoints included; ties go to the earlier step.
-- is_best: Whether it is the best-ranked of those that the host still keeps (of all, where it keeps none).
-- is_final: Whether it is the job's fine_tuned_model; where no checkpoint is, the last step.
-- is_retained: Whether the host still listed it at listed_at.
-- listed_at: When the job's checkpoints were last listed.
-- noise: How far the metric scatters in this job (one standard deviation): of losses, from the jumps between neighbours
--   in the second half of its curve; of rewards from the number of samples where the events tell it. Null for fewer than
--   3 values.
-- noise_source: What noise comes from: curve or samples.
-- lowest_value_ever: The best value on the whole curve of the job, also where no checkpoint is: the lowest loss, the
--   highest reward.
-- lowest_step_ever: The first step with that value.
-- generalization_loss: evaluation_value divided by lowest_value_ever, less 1: 0 at the lowest loss; null for rewards.
-- train_loss_mean: Mean train loss of the steps since the previous checkpoint.
-- train_gap: Validation loss less train_loss_mean (reinforcement: train reward less validation reward): the more above 0,
--   the worse it generalises. Borrowed values included, the whole validation file before a batch of it.
-- train_ratio: Validation loss divided by train_loss_mean; null where that is missing or 0, and for DPO.
-- change_from_previous: evaluation_value less that of the job's previous checkpoint by step.
-- total_steps: Steps of the whole run, as the events say; else the last step that is known.
-- n_epochs: Epochs of the run; null where the host does not say.

-- An item with each_loss, each_value ... stands for one of each metric of that kind, in its place. MEASURED(x) is x
-- unless it stands for "not measured"; USABLE(x) is x where it is a finite number too. Both are in build.py.
WITH own AS (
  SELECT
    account,
    fine_tuning_job_id,
    COALESCE(step_number, -1) AS step,
    id AS checkpoint_id,
    last_listed_at,
    MEASURED(metrics__each_value) AS each_value,
    USABLE(metrics__each_accuracy) AS each_accuracy
  FROM checkpoints
),

-- Every step of every run; a step with a checkpoint has the checkpoint's own values, else those that were logged at it.
timeline AS (
  SELECT
    s.account,
    s.fine_tuning_job_id,
    s.step,
    s.total_steps,
    o.checkpoint_id,
    o.last_listed_at,
    COALESCE(o.each_value, s.each_value) AS each_value,
    COALESCE(o.each_accuracy, s.each_accuracy) AS each_accuracy,
    CASE WHEN o.each_value IS NOT NULL THEN 3 ELSE s.each_value_from END AS each_value_from,
    CASE WHEN o.each_value IS NOT NULL AND USABLE(o.each_value) IS NULL THEN TRUE ELSE FALSE END AS is_diverged
  FROM _step_values AS s
  LEFT JOIN own AS o
    ON o.account = s.account AND o.fine_tuning_job_id = s.fine_tuning_job_id AND o.step = s.step
),

-- Of each metric: the checkpoints that claim to have it, NaN included, and those where it is a number.
counted AS NOT MATERIALIZED (
  SELECT
    account,
    fine_tuning_job_id,
    COUNT(checkpoint_id) AS checkpoints,
    COUNT(CASE WHEN checkpoint_id IS NOT NULL THEN each_value END) AS claim_each_value,
    COUNT(CASE WHEN checkpoint_id IS NOT NULL THEN USABLE(each_value) END) AS with_each_value,
    COUNT(COALESCE(full_valid_mean_reward, valid_mean_reward, train_mean_reward)) AS rewards,
    MAX(total_steps) AS announced_steps,
    MAX(step) AS last_step,
    MAX(last_listed_at) AS last_listing
  FROM timeline
  GROUP BY account, fine_tuning_job_id
  HAVING COUNT(checkpoint_id) > 0
),

kinds AS NOT MATERIALIZED (
  SELECT
    c.account,
    c.fine_tuning_job_id,
    c.checkpoints,
    c.claim_each_value,
    c.with_each_value,
    c.announced_steps,
    c.last_step,
    j.base_model,
    j.model_suffix,
    j.job_method,
    j.guessed_method,
    j.status,
    COALESCE(j.stage, 'finished') AS job_stage,
    j.created_at AS job_began_at,
    j.epochs,
    j.fine_tuned_model,
    COALESCE(j.checkpoints_listed_at, c.last_listing) AS listing,
    CASE WHEN j.job_method = 'reinforcement' OR c.rewards > 0 THEN TRUE ELSE FALSE END AS is_reinforcement
  FROM counted AS c
  LEFT JOIN _job_facts AS j
    ON j.account = c.account AND j.fine_tuning_job_id = c.fine_tuning_job_id
),

judged AS NOT MATERIALIZED (
  SELECT
    k.*,
    CASE
      WHEN is_reinforcement AND claim_each_valid_reward = checkpoints AND with_each_valid_reward > 0
        THEN 'each_valid_reward'
      WHEN is_reinforcement AND with_full_valid_mean_reward > 0 THEN 'full_valid_mean_reward'
      WHEN is_reinforcement AND with_valid_mean_reward > 0 THEN 'valid_mean_reward'
      WHEN is_reinforcement AND with_train_mean_reward > 0 THEN 'train_mean_reward'
      WHEN is_reinforcement THEN NULL
      WHEN claim_each_valid_loss = checkpoints AND with_each_valid_loss > 0 THEN 'each_valid_loss'
      WHEN with_each_loss > 0 THEN 'each_loss'
    END AS evaluation_metric
  FROM kinds AS k
),

evaluated AS NOT MATERIALIZED (
  SELECT
    t.account,
    t.fine_tuning_job_id,
    t.checkpoint_id,
    t.step,
    t.each_value,
    t.each_accuracy,
    t.is_diverged,
    j.evaluation_metric,
    j.is_reinforcement,
    j.last_step,
    j.announced_steps,
    j.base_model,
    j.model_suffix,
    COALESCE(j.job_method, CASE WHEN j.is_reinforcement THEN 'reinforcement' ELSE j.guessed_method END) AS any_method,
    j.status,
    j.job_stage,
    j.job_began_at,
    j.epochs,
    j.fine_tuned_model,
    j.listing,
    CASE WHEN t.is_diverged THEN NULL ELSE CASE j.evaluation_metric WHEN 'each_value' THEN USABLE(t.each_value) END END
      AS value_here,
    CASE j.evaluation_metric WHEN 'each_value' THEN t.each_value_from END AS value_from
  FROM timeline AS t
  JOIN judged AS j
    ON j.account = t.account AND j.fine_tuning_job_id = t.fine_tuning_job_id
),

-- The curve of that metric: the steps that have a value, in their order. Smaller scores are better in either kind of run.
points AS (
  SELECT
    account,
    fine_tuning_job_id,
    step,
    value_here,
    CASE WHEN is_reinforcement THEN -value_here ELSE value_here END AS score_here,
    value_here - LAG(value_here) OVER (PARTITION BY account, fine_tuning_job_id ORDER BY step, checkpoint_id) AS jump,
    ROW_NUMBER() OVER (PARTITION BY account, fine_tuning_job_id ORDER BY step, checkpoint_id) AS point,
    COUNT(*) OVER (PARTITION BY account, fine_tuning_job_id) AS points,
    MIN(CASE WHEN is_reinforcement THEN -value_here ELSE value_here END) OVER (PARTITION BY account, fine_tuning_job_id)
      AS best_score
  FROM evaluated
  WHERE value_here IS NOT NULL
),

curves AS (
  SELECT
    account,
    fine_tuning_job_id,
    MAX(points) AS points,
    MAX(best_score) AS best_score,
    MIN(CASE WHEN score_here = best_score AND step >= 0 THEN step END) AS best_step,
    SQRT(AVG(CASE WHEN 2 * point > points THEN jump * jump END) / 2) AS scatter,
    AVG(CASE WHEN 2 * point > points THEN value_here END) AS late_mean
  FROM points
  GROUP BY account, fine_tuning_job_id
),

-- Of each step, how many checkpoints were made at it or later: one number for the steps from one checkpoint to the next.
stretched AS (
  SELECT
    account,
    fine_tuning_job_id,
    step,
    USABLE(train_loss) AS train_loss_here,
    COUNT(checkpoint_id) OVER (PARTITION BY account, fine_tuning_job_id ORDER BY step DESC) AS stretch
  FROM timeline
  WHERE train_loss IS NOT NULL OR checkpoint_id IS NOT NULL
),

stretches AS (
  SELECT account, fine_tuning_job_id, MAX(step) AS step, AVG(train_loss_here) AS train_loss_mean
  FROM stretched
  GROUP BY account, fine_tuning_job_id, stretch
),

-- How many samples a validation reward is the mean of: their tokens in all by their tokens on average.
counted_tokens AS (
  SELECT
    account,
    fine_tuning_job_id,
    data__valid_reasoning_tokens_mean AS tokens_mean,
    SPLIT_PART(COALESCE(data, ''), '"valid_reasoning_tokens_count":', 2) AS data_from_count
  FROM events
  WHERE data__valid_reasoning_tokens_mean > 0 AND data__valid_reasoning_tokens_mean < 1e30
),

reward_samples AS (
  SELECT
    account,
    fine_tuning_job_id,
    MAX(AS_NUMBER(TRIM(REPLACE(SPLIT_PART(data_from_count, ',', 1), '}', ''))) / tokens_mean) AS samples
  FROM counted_tokens
  GROUP BY account, fine_tuning_job_id
),

-- From here on one row a checkpoint.
described AS (
  SELECT
    e.account,
    e.fine_tuning_job_id,
    e.checkpoint_id,
    e.step,
    e.is_diverged,
    e.is_reinforcement,
    e.evaluation_metric,
    e.value_here,
    e.value_from,
    e.each_value,
    e.each_accuracy,
    e.last_step,
    e.announced_steps,
    e.base_model,
    e.model_suffix,
    e.any_method,
    e.status,
    e.job_stage,
    e.job_began_at,
    e.epochs,
    e.listing,
    CASE WHEN e.is_reinforcement THEN -e.value_here ELSE e.value_here END AS score_here,
    u.best_score,
    u.best_step,
    t.train_loss_mean,
    c.fine_tuned_model_checkpoint,
    c.step_number,
    c.created_at,
    CASE WHEN c.fine_tuned_model_checkpoint = e.fine_tuned_model THEN 0 ELSE 1 END AS not_the_model,
    CASE WHEN c.last_listed_at < e.listing THEN FALSE ELSE TRUE END AS is_kept,
    CASE
      WHEN e.is_reinforcement AND u.late_mean BETWEEN 0 AND 1 AND r.samples >= 1
        THEN SQRT(u.late_mean * (1 - u.late_mean) / r.samples)
      WHEN u.points >= 3 THEN u.scatter
    END AS scatter_or_error,
    CASE
      WHEN e.is_reinforcement AND u.late_mean BETWEEN 0 AND 1 AND r.samples >= 1 THEN 'samples'
      WHEN u.points >= 3 THEN 'curve'
    END AS noise_from,
    MEASURED(c.metrics__each_value) AS own_each_value
  FROM evaluated AS e
  JOIN checkpoints AS c
    ON c.account = e.account AND c.fine_tuning_job_id = e.fine_tuning_job_id AND c.id = e.checkpoint_id
  LEFT JOIN curves AS u
    ON u.account = e.account AND u.fine_tuning_job_id = e.fine_tuning_job_id
  LEFT JOIN stretches AS t
    ON t.account = e.account AND t.fine_tuning_job_id = e.fine_tuning_job_id AND t.step = e.step
  LEFT JOIN reward_samples AS r
    ON r.account = e.account AND r.fine_tuning_job_id = e.fine_tuning_job_id
  WHERE e.checkpoint_id IS NOT NULL
),

-- null sorts last everywhere.
ordered AS (
  SELECT
    d.*,
    CASE WHEN value_here IS NULL THEN 1 ELSE 0 END AS unranked,
    CASE WHEN value_here IS NULL OR NOT is_kept THEN 1 ELSE 0 END AS not_deployable,
    CASE WHEN value_here IS NULL THEN 0 ELSE score_here END AS score,
    COALESCE(USABLE(full_valid_loss), USABLE(valid_loss)) AS known_valid_loss,
    USABLE(train_mean_reward) AS known_train_reward,
    COALESCE(USABLE(full_valid_mean_reward), USABLE(valid_mean_reward)) AS known_valid_reward
  FROM described AS d
),

ranked AS (
  SELECT
    o.*,
    ROW_NUMBER() OVER (
      PARTITION BY account, fine_tuning_job_id ORDER BY unranked, score, step, created_at, checkpoint_id
    ) AS place,
    ROW_NUMBER() OVER (
      PARTITION BY account, fine_tuning_job_id ORDER BY not_deployable, unranked, score, step, created_at, checkpoint_id
    ) AS place_to_deploy,
    ROW_NUMBER() OVER (
      PARTITION BY account, fine_tuning_job_id
      ORDER BY not_the_model, step DESC, created_at DESC, checkpoint_id DESC
    ) AS place_from_end,
    MAX(CASE WHEN is_kept THEN 1 ELSE 0 END) OVER (PARTITION BY account, fine_tuning_job_id) AS any_kept,
    LAG(value_here) OVER (PARTITION BY account, fine_tuning_job_id ORDER BY step, created_at, checkpoint_id)
      AS previous_value
  FROM ordered AS o
)

SELECT
  account,
  fine_tuning_job_id,
  checkpoint_id,
  fine_tuned_model_checkpoint,
  base_model,
  model_suffix AS suffix,
  any_method AS method,
  status AS job_status,
  job_stage AS stage,
  job_began_at AS job_created_at,
  step_number,
  created_at,
  CASE WHEN created_at >= job_began_at THEN EPOCH(created_at) - EPOCH(job_began_at) END AS seconds_since_job_start,
  own_train_loss AS train_loss,
  train_mean_token_accuracy,
  own_valid_loss AS valid_loss,
  valid_mean_token_accuracy,
  own_full_valid_loss AS full_valid_loss,
  full_valid_mean_token_accuracy,
  own_train_mean_reward AS train_mean_reward,
  own_valid_mean_reward AS valid_mean_reward,
  own_full_valid_mean_reward AS full_valid_mean_reward,
  evaluation_metric,
  CASE
    WHEN evaluation_metric LIKE 'full%' THEN 'full_validation'
    WHEN evaluation_metric LIKE 'valid%' THEN 'validation_batches'
    WHEN evaluation_metric LIKE 'train%' THEN 'training_only'
  END AS evidence,
  CASE WHEN evaluation_metric IS NOT NULL THEN is_reinforcement END AS higher_is_better,
  value_here AS evaluation_value,
  CASE
    WHEN value_here IS NULL THEN NULL
    WHEN value_from = 1 THEN 'event'
    WHEN value_from = 2 THEN 'result_file'
    ELSE 'checkpoint'
  END AS evaluation_source,
  is_diverged,
  CASE WHEN unranked = 0 THEN place END AS rank_in_job,
  CASE WHEN place_to_deploy = 1 AND unranked = 0 AND (is_kept OR any_kept = 0) THEN TRUE ELSE FALSE END AS is_best,
  CASE WHEN place_from_end = 1 THEN TRUE ELSE FALSE END AS is_final,
  is_kept AS is_retained,
  listing AS listed_at,
  scatter_or_error AS noise,
  noise_from AS noise_source,
  CASE WHEN is_reinforcement THEN -best_score ELSE best_score END AS lowest_value_ever,
  best_step AS lowest_step_ever,
  CASE WHEN NOT is_reinforcement AND best_score > 0 THEN value_here / best_score - 1 END AS generalization_loss,
  train_loss_mean,
  CASE
    WHEN is_reinforcement THEN known_train_reward - known_valid_reward
    ELSE known_valid_loss - train_loss_mean
  END AS train_gap,
  CASE WHEN train_loss_mean > 0 AND COALESCE(any_method, '') <> 'dpo' THEN known_valid_loss / train_loss_mean END
    AS train_ratio,
  value_here - previous_value AS change_from_previous,
  COALESCE(announced_steps, CAST(last_step AS DOUBLE)) AS total_steps,
  epochs AS n_epochs
FROM ranked
