-- Every checkpoint with its job: how good it is by the one metric that the job's checkpoints are compared by, how it
-- ranks, whether the host still keeps it, and how noisy that metric is. A loss or an accuracy below 0, NaN or infinity
-- is no measurement.
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
    MEASURED(metrics__each_value) AS each_value
  FROM checkpoints
),

-- Every step of every run; a step with a checkpoint has the checkpoint's own values, else those of its event or file.
timeline AS (
  SELECT
    s.account,
    s.fine_tuning_job_id,
    s.step,
    s.total_steps,
    o.checkpoint_id,
    o.last_listed_at,
    COALESCE(o.each_value, CASE WHEN s.each_value_from < 3 THEN s.each_value END) AS each_value,
    CASE WHEN o.each_value IS NOT NULL THEN 3 ELSE s.each_value_from END AS each_value_from,
    s.each_accuracy,
    j.job_method
  FROM _step_values AS s
  LEFT JOIN own AS o
    ON o.account = s.account AND o.fine_tuning_job_id = s.fine_tuning_job_id AND o.step = s.step
  LEFT JOIN _job_facts AS j
    ON j.account = s.account AND j.fine_tuning_job_id = s.fine_tuning_job_id
),

-- Of each metric: the checkpoints that claim to have it, NaN included, and those where it is a number. Of each step: how
-- many checkpoints were made at it or later.
counted AS (
  SELECT
    t.*,
    COUNT(checkpoint_id) OVER (PARTITION BY account, fine_tuning_job_id) AS checkpoints,
    COUNT(CASE WHEN checkpoint_id IS NOT NULL THEN each_value END) OVER (PARTITION BY account, fine_tuning_job_id)
      AS claim_each_value,
    COUNT(CASE WHEN checkpoint_id IS NOT NULL THEN USABLE(each_value) END)
      OVER (PARTITION BY account, fine_tuning_job_id) AS with_each_value,
    COUNT(COALESCE(full_valid_mean_reward, valid_mean_reward, train_mean_reward))
      OVER (PARTITION BY account, fine_tuning_job_id) AS rewards,
    MAX(total_steps) OVER (PARTITION BY account, fine_tuning_job_id) AS announced_steps,
    MAX(step) OVER (PARTITION BY account, fine_tuning_job_id) AS last_step,
    MAX(last_listed_at) OVER (PARTITION BY account, fine_tuning_job_id) AS last_listing,
    COUNT(checkpoint_id) OVER (PARTITION BY account, fine_tuning_job_id ORDER BY step DESC) AS stretch
  FROM timeline AS t
),

kinds AS (
  SELECT
    c.*,
    CASE WHEN job_method = 'reinforcement' OR rewards > 0 THEN TRUE ELSE FALSE END AS is_reinforcement,
    CASE
      WHEN each_value_from = 3 AND each_value IS NOT NULL AND USABLE(each_value) IS NULL THEN TRUE
      ELSE FALSE
    END AS is_diverged
  FROM counted AS c
),

judged AS (
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

-- Smaller scores are better in either kind of run.
evaluated AS (
  SELECT
    j.*,
    CASE WHEN is_diverged THEN NULL ELSE CASE evaluation_metric WHEN 'each_value' THEN USABLE(each_value) END END
      AS value_here,
    CASE evaluation_metric
      WHEN 'each_reward' THEN -USABLE(each_reward)
      WHEN 'each_loss' THEN USABLE(each_loss)
    END AS score_here,
    CASE evaluation_metric WHEN 'each_value' THEN each_value_from END AS value_from
  FROM judged AS j
),

-- The curve of that metric: the steps that have a value, in their order.
curves AS (
  SELECT
    e.*,
    value_here - LAG(value_here) OVER (
      PARTITION BY account, fine_tuning_job_id, CASE WHEN value_here IS NULL THEN 1 ELSE 0 END
      ORDER BY step, checkpoint_id
    ) AS jump,
    ROW_NUMBER() OVER (
      PARTITION BY account, fine_tuning_job_id, CASE WHEN value_here IS NULL THEN 1 ELSE 0 END
      ORDER BY step, checkpoint_id
    ) AS point,
    COUNT(value_here) OVER (PARTITION BY account, fine_tuning_job_id) AS points,
    MIN(CASE WHEN value_here IS NOT NULL THEN score_here END) OVER (PARTITION BY account, fine_tuning_job_id)
      AS best_score,
    AVG(USABLE(train_loss)) OVER (PARTITION BY account, fine_tuning_job_id, stretch) AS train_loss_mean
  FROM evaluated AS e
),

scattered AS (
  SELECT
    c.*,
    SQRT(AVG(CASE WHEN 2 * point > points THEN jump * jump END) OVER (PARTITION BY account, fine_tuning_job_id) / 2)
      AS scatter,
    AVG(CASE WHEN 2 * point > points THEN value_here END) OVER (PARTITION BY account, fine_tuning_job_id) AS late_mean,
    MIN(CASE WHEN value_here IS NOT NULL AND score_here = best_score AND step >= 0 THEN step END)
      OVER (PARTITION BY account, fine_tuning_job_id) AS best_step
  FROM curves AS c
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
    s.account,
    s.fine_tuning_job_id,
    s.checkpoint_id,
    s.step,
    s.last_step,
    s.announced_steps,
    s.is_reinforcement,
    s.is_diverged,
    s.evaluation_metric,
    s.value_here,
    s.value_from,
    s.score_here,
    s.best_score,
    s.best_step,
    s.train_loss_mean,
    s.each_value,
    c.fine_tuned_model_checkpoint,
    c.step_number,
    c.created_at,
    j.base_model,
    j.model_suffix,
    COALESCE(j.job_method, CASE WHEN s.is_reinforcement THEN 'reinforcement' ELSE j.guessed_method END) AS any_method,
    j.status,
    COALESCE(j.stage, 'finished') AS job_stage,
    j.created_at AS job_began_at,
    j.epochs,
    COALESCE(j.checkpoints_listed_at, s.last_listing) AS listing,
    CASE WHEN c.fine_tuned_model_checkpoint = j.fine_tuned_model THEN 0 ELSE 1 END AS not_the_model,
    CASE WHEN c.last_listed_at < COALESCE(j.checkpoints_listed_at, s.last_listing) THEN FALSE ELSE TRUE END AS is_kept,
    CASE
      WHEN s.evaluation_metric LIKE '%reward' AND s.late_mean BETWEEN 0 AND 1 AND r.samples >= 1
        THEN SQRT(s.late_mean * (1 - s.late_mean) / r.samples)
      WHEN s.points >= 3 THEN s.scatter
    END AS scatter_or_error,
    CASE
      WHEN s.evaluation_metric LIKE '%reward' AND s.late_mean BETWEEN 0 AND 1 AND r.samples >= 1 THEN 'samples'
      WHEN s.points >= 3 THEN 'curve'
    END AS noise_from,
    MEASURED(c.metrics__each_value) AS own_each_value,
    COALESCE(USABLE(c.metrics__each_accuracy), s.each_accuracy) AS any_each_accuracy
  FROM scattered AS s
  JOIN checkpoints AS c
    ON c.account = s.account AND c.fine_tuning_job_id = s.fine_tuning_job_id AND c.id = s.checkpoint_id
  LEFT JOIN _job_facts AS j
    ON j.account = s.account AND j.fine_tuning_job_id = s.fine_tuning_job_id
  LEFT JOIN reward_samples AS r
    ON r.account = s.account AND r.fine_tuning_job_id = s.fine_tuning_job_id
  WHERE s.checkpoint_id IS NOT NULL
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
  any_train_mean_token_accuracy AS train_mean_token_accuracy,
  own_valid_loss AS valid_loss,
  any_valid_mean_token_accuracy AS valid_mean_token_accuracy,
  own_full_valid_loss AS full_valid_loss,
  any_full_valid_mean_token_accuracy AS full_valid_mean_token_accuracy,
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
