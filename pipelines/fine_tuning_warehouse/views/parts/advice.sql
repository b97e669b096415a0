-- What best_checkpoints says, but for what depends on the host's listing of models.
WITH numbered AS (
  SELECT
    h.*,
    ROW_NUMBER() OVER (
      PARTITION BY account, fine_tuning_job_id
      ORDER BY
        CASE WHEN is_best THEN 0 ELSE 1 END,
        CASE WHEN is_retained THEN 0 ELSE 1 END,
        CASE WHEN is_final THEN 0 ELSE 1 END,
        COALESCE(step_number, -1) DESC,
        checkpoint_id
    ) AS place
  FROM checkpoint_history AS h
),

job_rows AS (
  SELECT
    account,
    fine_tuning_job_id,
    MAX(base_model) AS base_model,
    MAX(suffix) AS suffix,
    MAX(method) AS method,
    MAX(job_status) AS job_status,
    MAX(stage) AS stage,
    MAX(job_created_at) AS job_created_at,
    COUNT(*) AS checkpoints,
    COUNT(evaluation_value) AS with_value,
    SUM(CASE WHEN is_retained THEN 1 ELSE 0 END) AS retained,
    SUM(CASE WHEN is_retained AND evaluation_value IS NOT NULL THEN 1 ELSE 0 END) AS retained_with_value,
    MAX(evaluation_metric) AS evaluation_metric,
    MAX(evidence) AS evidence,
    MAX(CASE WHEN higher_is_better THEN 1 WHEN NOT higher_is_better THEN -1 END) AS direction,
    MAX(noise) AS noise,
    MAX(noise_source) AS noise_source,
    MAX(lowest_value_ever) AS lowest_value_ever,
    MAX(lowest_step_ever) AS lowest_step_ever,
    MAX(total_steps) AS total_steps,
    MAX(n_epochs) AS n_epochs,
    MAX(listed_at) AS listed_at,
    MAX(CASE WHEN place = 1 THEN checkpoint_id END) AS checkpoint_id,
    MAX(CASE WHEN place = 1 THEN fine_tuned_model_checkpoint END) AS fine_tuned_model_checkpoint,
    MAX(CASE WHEN place = 1 THEN step_number END) AS step_number,
    MAX(CASE WHEN place = 1 THEN evaluation_value END) AS evaluation_value,
    MAX(CASE WHEN place = 1 THEN evaluation_source END) AS evaluation_source,
    MAX(CASE WHEN place = 1 THEN generalization_loss END) AS generalization_loss,
    MAX(CASE WHEN place = 1 THEN train_gap END) AS train_gap,
    MAX(CASE WHEN is_final THEN checkpoint_id END) AS final_checkpoint_id,
    MAX(CASE WHEN is_final THEN fine_tuned_model_checkpoint END) AS final_name,
    MAX(CASE WHEN is_final THEN evaluation_value END) AS final_evaluation_value,
    MAX(CASE WHEN is_final THEN generalization_loss END) AS final_generalization_loss,
    MAX(CASE WHEN is_final THEN train_gap END) AS final_train_gap,
    MAX(CASE WHEN is_final AND is_diverged THEN 1 ELSE 0 END) AS final_diverged,
    MAX(CASE WHEN is_final AND is_retained THEN 1 ELSE 0 END) AS final_retained
  FROM numbered
  GROUP BY account, fine_tuning_job_id
),

-- better_by: how much better the checkpoint is than the final one; missed: how much better the best step ever is.
compared AS (
  SELECT
    r.*,
    direction * (evaluation_value - final_evaluation_value) AS better_by,
    direction * (lowest_value_ever - evaluation_value) AS missed,
    -- One batch is noisier than it looks where the best of several is chosen, or of a whole curve; and so is a reward of
    -- unknown samples.
    noise * 1.4142136
    * CASE WHEN evidence = 'validation_batches' OR (direction = 1 AND noise_source = 'curve') THEN 3 ELSE 1 END
      AS margin,
    noise * 1.4142136
    * CASE WHEN evidence = 'validation_batches' OR (direction = 1 AND noise_source = 'curve') THEN 4 ELSE 1 END
      AS margin_of_curve
  FROM job_rows AS r
),

advised AS (
  SELECT
    c.*,
    CASE
      WHEN stage <> 'finished' THEN 'not_finished'
      WHEN COALESCE(evidence, 'training_only') = 'training_only' THEN 'cannot_tell'
      WHEN retained = 0 THEN 'retrain'
      WHEN evaluation_value IS NULL THEN 'cannot_tell'
      WHEN missed > margin_of_curve THEN 'retrain'
      WHEN checkpoint_id = final_checkpoint_id THEN 'keep_final'
      WHEN final_diverged = 1 OR final_retained = 0 THEN 'deploy'
      WHEN final_evaluation_value IS NULL THEN 'cannot_tell'
      WHEN better_by <= 0 THEN 'keep_final'
      WHEN margin IS NULL AND evidence = 'full_validation' THEN 'deploy'
      WHEN margin IS NULL THEN 'cannot_tell'
      WHEN better_by > margin THEN 'deploy'
      ELSE 'keep_final'
    END AS advice,
    CASE
      WHEN final_diverged = 1 OR final_retained = 0 OR better_by > margin THEN fine_tuned_model_checkpoint
      ELSE final_name
    END AS better_name,
    CASE WHEN evidence <> 'training_only' AND better_by > 0 THEN better_by WHEN evidence <> 'training_only' AND better_by <= 0 THEN 0 END
      AS cost_of_final,
    CASE
      WHEN evidence <> 'training_only' AND total_steps > 0 AND n_epochs > 0 AND lowest_step_ever > 0 THEN
        CASE
          WHEN lowest_step_ever * n_epochs / total_steps < 1 THEN 1
          ELSE CAST(FLOOR(lowest_step_ever * n_epochs / total_steps + 0.5) AS BIGINT)
        END
    END AS suggested_n_epochs,
    evaluation_metric || ' ' || IN_WORDS(evaluation_value)
      || COALESCE(' at step ' || CAST(step_number AS VARCHAR), '') AS best_in_words,
    CASE WHEN direction = 1 THEN 'highest ' ELSE 'lowest ' END || evaluation_metric AS lowest_in_words
  FROM compared AS c
),

named AS (
  SELECT
    a.*,
    CASE WHEN advice = 'keep_final' THEN final_train_gap ELSE train_gap END AS advised_train_gap,
    CASE
      WHEN retained = 0 THEN NULL
      WHEN advice = 'deploy' OR advice = 'not_finished' THEN fine_tuned_model_checkpoint
      WHEN advice = 'keep_final' THEN final_name
      WHEN advice = 'retrain' THEN better_name
      WHEN evidence <> 'training_only' AND evaluation_value IS NOT NULL THEN fine_tuned_model_checkpoint
    END AS checkpoint_to_deploy
  FROM advised AS a
)

SELECT
  account,
  fine_tuning_job_id,
  base_model,
  suffix,
  method,
  job_status,
  job_created_at,
  advice,
  CASE advice
    WHEN 'not_finished' THEN
      CASE
        WHEN stage = 'running' THEN 'The job is still running. Best checkpoint so far: '
        ELSE 'The job ended early (' || COALESCE(job_status, 'no status') || '). Best checkpoint before that: '
      END
      || COALESCE(best_in_words, 'the last one, since none has a loss or reward to compare by') || '.'
    WHEN 'cannot_tell' THEN
      CASE
        WHEN evaluation_metric IS NULL THEN 'No loss or reward to compare by.'
        WHEN evidence = 'training_only'
          THEN 'Only training was measured (' || COALESCE(best_in_words, evaluation_metric)
          || '). A model that memorises its training data looks best there, so this does not tell which checkpoint is '
          || 'better. Give the next job a validation file.'
        WHEN evaluation_value IS NULL THEN 'No checkpoint that the host keeps has a ' || evaluation_metric || '.'
        WHEN final_evaluation_value IS NULL
          THEN 'The best that is known is ' || best_in_words || '; the final checkpoint has no ' || evaluation_metric
          || '.'
        ELSE 'Best is ' || best_in_words || ', the final one has ' || IN_WORDS(final_evaluation_value)
          || '. There are too few values to tell how noisy they are.'
      END
    WHEN 'retrain' THEN
      COALESCE(
        'The ' || lowest_in_words || ' was ' || IN_WORDS(lowest_value_ever)
        || COALESCE(' at step ' || CAST(lowest_step_ever AS VARCHAR), ''),
        'The host keeps no checkpoint'
      )
      || CASE
        WHEN retained = 0 THEN ', and the host keeps none of the checkpoints any more.'
        ELSE ', but the host keeps no checkpoint of it. The best one that it keeps has '
          || IN_WORDS(evaluation_value) || COALESCE(' at step ' || CAST(step_number AS VARCHAR), '') || '.'
      END
      || COALESCE(' Train again with n_epochs ' || CAST(suggested_n_epochs AS VARCHAR) || '.', ' Train again, and stop there.')
    WHEN 'keep_final' THEN
      CASE
        WHEN checkpoints = 1 THEN 'The only checkpoint (' || best_in_words || ').'
        WHEN checkpoint_id = final_checkpoint_id
          THEN 'The final checkpoint has the ' || lowest_in_words || ' of those that the host keeps ('
          || IN_WORDS(evaluation_value) || ').'
        WHEN better_by <= 0 THEN 'The final checkpoint is as good as the best other one (' || best_in_words || ').'
        ELSE
          CASE WHEN better_by > noise * 1.4142136 THEN 'Too little to rely on' ELSE 'No clear difference' END
          || ': the best other one is ' || best_in_words || ', the final one has '
          || IN_WORDS(final_evaluation_value) || ', and the noise is ' || IN_WORDS(noise) || '. Keep the final one.'
      END
    ELSE
      'The ' || lowest_in_words || ' of ' || CAST(retained_with_value AS VARCHAR) || ' checkpoints that the host keeps: '
      || IN_WORDS(evaluation_value) || COALESCE(' at step ' || CAST(step_number AS VARCHAR), '')
      || CASE
        WHEN final_diverged = 1 THEN '. The final one diverged.'
        WHEN final_retained = 0 THEN '. The host no longer keeps the final one.'
        ELSE '. Deploying the final one (' || IN_WORDS(final_evaluation_value) || ') would cost '
          || IN_WORDS(better_by) || COALESCE('; the noise is ' || IN_WORDS(noise), '') || '.'
      END
  END
  || CASE
    WHEN advice = 'retrain' OR retained > 0 THEN ''
    ELSE ' The host keeps none of the checkpoints any more.'
  END
  || CASE
    WHEN evidence = 'validation_batches' AND advice IN ('deploy', 'keep_final') AND checkpoints > 1
      THEN ' Each value is of one validation batch.'
    WHEN direction = 1 AND advised_train_gap > 0.10
      THEN ' The reward in training is ' || IN_WORDS(advised_train_gap) || ' higher than in validation: check for overfitting.'
    ELSE ''
  END AS reason,
  checkpoint_to_deploy,
  checkpoints,
  checkpoint_id,
  fine_tuned_model_checkpoint,
  step_number,
  evaluation_metric,
  evidence,
  CASE WHEN direction = 1 THEN TRUE WHEN direction = -1 THEN FALSE END AS higher_is_better,
  evaluation_value,
  evaluation_source,
  final_checkpoint_id,
  final_evaluation_value,
  cost_of_final,
  noise,
  CASE
    WHEN cost_of_final > noise * 1.4142136 THEN TRUE
    WHEN cost_of_final <= noise * 1.4142136 THEN FALSE
  END AS is_clear,
  lowest_value_ever,
  lowest_step_ever,
  generalization_loss,
  final_generalization_loss,
  suggested_n_epochs,
  train_gap,
  CASE WHEN retained > 0 THEN TRUE ELSE FALSE END AS is_retained,
  listed_at
FROM named
