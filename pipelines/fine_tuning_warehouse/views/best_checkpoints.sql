-- The checkpoint to deploy for each job that has checkpoints, why, and what deploying the final one instead would cost.
-- It is the best among those that the host still keeps; a better one that it dropped is named in the reason.
--
-- account: Label of the account that the row came from.
-- fine_tuning_job_id: Id of the job; unique within an account.
-- base_model: Base model that was tuned.
-- suffix: Suffix of the model's name.
-- method: supervised, dpo or reinforcement.
-- job_created_at: When the job was created.
-- checkpoints: Checkpoints of the job, dropped ones included.
-- checkpoint_id: Id of the checkpoint to deploy; where none has a metric, of the final one that the host keeps.
-- fine_tuned_model_checkpoint: Name to deploy it by.
-- step_number: Step at which it was made.
-- evaluation_metric: The one metric that the job's checkpoints are compared by.
-- higher_is_better: Whether higher values of it are better, as rewards are; losses are not.
-- evaluation_value: Its value of that metric; null where there is none.
-- evaluation_source: Where the value is from: checkpoint, event or result_file.
-- overfitting_band: Its band: healthy, watch, overfitting or severe; null without a validation loss.
-- final_checkpoint_id: Id of the job's final checkpoint.
-- final_evaluation_value: The final checkpoint's value of the metric.
-- cost_of_final: How much worse the final checkpoint is, never negative; null where either value is missing.
-- is_retained: Whether the host still keeps the checkpoint; false only where it keeps none of the job's.
-- reason: Why this one, in words.

-- Numbers as text: 4 decimals, 8 for small ones.
WITH shown AS (
  SELECT
    h.*,
    CASE
      WHEN ABS(evaluation_value) >= 1e9 THEN CAST(evaluation_value AS VARCHAR)
      WHEN ABS(evaluation_value) >= 0.001 OR evaluation_value = 0
        THEN CAST(CAST(evaluation_value AS DECIMAL(18, 4)) AS VARCHAR)
      ELSE CAST(CAST(evaluation_value AS DECIMAL(18, 8)) AS VARCHAR)
    END || COALESCE(' at step ' || CAST(step_number AS VARCHAR), '') AS value_and_step
  FROM checkpoint_history AS h
),

numbered AS (
  SELECT
    t.*,
    ROW_NUMBER() OVER (
      PARTITION BY account, fine_tuning_job_id
      ORDER BY
        CASE WHEN is_best THEN 0 ELSE 1 END,
        CASE WHEN is_retained THEN 0 ELSE 1 END,
        CASE WHEN is_final THEN 0 ELSE 1 END,
        COALESCE(step_number, -1) DESC,
        checkpoint_id
    ) AS place
  FROM shown AS t
),

job_totals AS (
  SELECT
    account,
    fine_tuning_job_id,
    COUNT(*) AS checkpoints,
    COUNT(evaluation_value) AS with_value,
    SUM(CASE WHEN is_retained THEN 1 ELSE 0 END) AS retained,
    SUM(CASE WHEN is_retained AND evaluation_value IS NOT NULL THEN 1 ELSE 0 END) AS retained_with_value,
    MIN(CASE WHEN NOT is_retained THEN rank_in_job END) AS best_dropped_rank
  FROM shown
  GROUP BY account, fine_tuning_job_id
),

joined AS (
  SELECT
    b.account,
    b.fine_tuning_job_id,
    b.base_model,
    b.suffix,
    b.method,
    b.job_created_at,
    n.checkpoints,
    b.checkpoint_id,
    b.fine_tuned_model_checkpoint,
    b.step_number,
    b.evaluation_metric,
    b.higher_is_better,
    b.evaluation_value,
    b.evaluation_source,
    b.overfitting_band,
    f.checkpoint_id AS final_checkpoint_id,
    f.evaluation_value AS final_evaluation_value,
    CASE
      WHEN b.evaluation_value IS NULL OR f.evaluation_value IS NULL THEN NULL
      WHEN b.higher_is_better AND b.evaluation_value > f.evaluation_value THEN b.evaluation_value - f.evaluation_value
      WHEN NOT b.higher_is_better AND f.evaluation_value > b.evaluation_value
        THEN f.evaluation_value - b.evaluation_value
      ELSE 0
    END AS cost_of_final,
    b.is_retained,
    b.is_final,
    b.value_and_step,
    n.retained,
    CASE WHEN n.retained > 0 THEN n.retained_with_value ELSE n.with_value END AS compared,
    CASE WHEN n.retained > 0 THEN n.retained ELSE n.checkpoints END
      - CASE WHEN n.retained > 0 THEN n.retained_with_value ELSE n.with_value END AS left_out,
    CASE
      WHEN n.retained > 0 AND n.best_dropped_rank < COALESCE(b.rank_in_job, n.best_dropped_rank + 1)
        THEN d.checkpoint_id
    END AS dropped_id,
    d.value_and_step AS dropped_value_and_step
  FROM numbered AS b
  JOIN job_totals AS n
    ON n.account = b.account AND n.fine_tuning_job_id = b.fine_tuning_job_id
  JOIN shown AS f
    ON f.account = b.account AND f.fine_tuning_job_id = b.fine_tuning_job_id
  LEFT JOIN shown AS d
    ON d.account = b.account
    AND d.fine_tuning_job_id = b.fine_tuning_job_id
    AND d.rank_in_job = n.best_dropped_rank
  WHERE b.place = 1 AND f.is_final
)

SELECT
  account,
  fine_tuning_job_id,
  base_model,
  suffix,
  method,
  job_created_at,
  checkpoints,
  checkpoint_id,
  fine_tuned_model_checkpoint,
  step_number,
  evaluation_metric,
  higher_is_better,
  evaluation_value,
  evaluation_source,
  overfitting_band,
  final_checkpoint_id,
  final_evaluation_value,
  cost_of_final,
  is_retained,
  CASE
    WHEN evaluation_metric IS NULL THEN 'No loss or reward to compare by'
    WHEN evaluation_value IS NULL THEN 'No checkpoint that the host keeps has a ' || evaluation_metric
    WHEN checkpoints = 1 THEN 'The only checkpoint (' || evaluation_metric || ' ' || value_and_step || ')'
    ELSE
      CASE WHEN higher_is_better THEN 'Highest ' ELSE 'Lowest ' END
      || evaluation_metric
      || ' of '
      || CAST(compared AS VARCHAR)
      || CASE WHEN compared = 1 THEN ' checkpoint' ELSE ' checkpoints' END
      || CASE WHEN retained < checkpoints AND retained > 0 THEN ' that the host keeps' ELSE '' END
      || ' (' || value_and_step || ')'
      || CASE
        WHEN left_out = 0 THEN ''
        WHEN left_out = 1 THEN ', 1 without that metric left out'
        ELSE ', ' || CAST(left_out AS VARCHAR) || ' without that metric left out'
      END
  END
  || CASE
    WHEN is_final AND evaluation_value IS NULL THEN ': this is the final checkpoint.'
    WHEN evaluation_value IS NULL THEN ': this is the last one kept.'
    WHEN checkpoints = 1 THEN '.'
    WHEN is_final THEN '; it is the final one.'
    WHEN cost_of_final IS NULL THEN '; the final one has no such value.'
    WHEN cost_of_final > 0 THEN
      '; deploying the final one would cost '
      || CASE
        WHEN cost_of_final >= 1e9 THEN CAST(cost_of_final AS VARCHAR)
        WHEN cost_of_final >= 0.001 THEN CAST(CAST(cost_of_final AS DECIMAL(18, 4)) AS VARCHAR)
        ELSE CAST(CAST(cost_of_final AS DECIMAL(18, 8)) AS VARCHAR)
      END
      || '.'
    WHEN evaluation_value = final_evaluation_value THEN '; the final one is as good.'
    ELSE '.'
  END
  || CASE
    WHEN retained = 0 THEN ' The host keeps none of them any more.'
    WHEN dropped_id IS NOT NULL
      THEN ' ' || dropped_id || ' was better (' || dropped_value_and_step || '), but the host has dropped it.'
    ELSE ''
  END
  || CASE
    WHEN compared < 2 OR evaluation_value IS NULL OR evaluation_metric LIKE 'full%' THEN ''
    WHEN evaluation_metric LIKE 'train%' THEN ' Each is of one training batch, and noisy.'
    WHEN evaluation_metric LIKE 'valid%' THEN ' Each is of one validation batch, and noisy.'
    ELSE ''
  END AS reason
FROM joined
