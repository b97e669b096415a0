-- The models that jobs have made, and their checkpoints: whether each can still be called, as of the host's last listing
-- of models, and when it is retired, as a table `retirements` says that you fill. No sync touches that table. It has a
-- row a model: model (a base model or a fine-tuned one, by its whole name), retires_at (a date), replacement, note.
--
-- account: Label of the account that the row came from.
-- fine_tuning_job_id: Id of the job that made it.
-- model: Name to call it by.
-- checkpoint_id: Id of the checkpoint; null for a final model that is not listed as a checkpoint.
-- step_number: Step of the checkpoint.
-- is_final: Whether it is the final model of its job.
-- base_model: Base model that the job tuned.
-- is_callable: Whether the last listing has it; null if that cannot be told (see the page of this view).
-- last_seen_at: When a listing last had it; null if none ever had.
-- listed_at: When the models of the account were last listed: is_callable is as of then.
-- retires_at: The day when it stops to answer, as retirements says of it or else of its base model; else as the host says.
-- replacement: What retirements says to use instead.
-- note: What else retirements says.

WITH
  -- COALESCE, since Sail unites no two columns that are stored under different numbers.
  named AS (
    SELECT
      account,
      id AS fine_tuning_job_id,
      COALESCE(fine_tuned_model, '') AS model,
      CAST(NULL AS VARCHAR) AS checkpoint_id,
      CAST(NULL AS BIGINT) AS step_number,
      1 AS final
    FROM jobs
    WHERE fine_tuned_model <> ''
    UNION ALL
    SELECT
      account,
      fine_tuning_job_id,
      COALESCE(fine_tuned_model_checkpoint, '') AS model,
      id AS checkpoint_id,
      step_number,
      0 AS final
    FROM checkpoints
    WHERE fine_tuned_model_checkpoint <> ''
  ),

  -- A final model is a checkpoint too, with the same name, on most hosts.
  made AS (
    SELECT
      account,
      fine_tuning_job_id,
      model,
      LOWER(model) AS name,
      MAX(checkpoint_id) AS checkpoint_id,
      MAX(step_number) AS step_number,
      MAX(final) AS final
    FROM named
    GROUP BY account, fine_tuning_job_id, model
  ),

  listed AS (
    SELECT
      account,
      LOWER(id) AS name,
      MAX(last_listed_at) AS seen_at,
      MAX(deprecation__inference) AS served_until
    FROM models
    GROUP BY account, LOWER(id)
  ),

  listings AS (
    SELECT account, MAX(seen_at) AS listed_at
    FROM listed
    GROUP BY account
  ),

  -- Some hosts list base models only, and some no checkpoints: then a name that is missing says nothing.
  found AS (
    SELECT n.account, n.fine_tuning_job_id, MAX(n.final) AS final
    FROM named AS n
    JOIN listed AS l
      ON l.account = n.account AND l.name = LOWER(n.model)
    GROUP BY n.account, n.fine_tuning_job_id, n.model
  ),

  shown AS (
    SELECT DISTINCT account, final
    FROM found
  ),

  tuned AS (
    SELECT
      account,
      id AS fine_tuning_job_id,
      model AS base_model,
      finished_at
    FROM jobs
  ),

  known AS (
    SELECT
      m.*,
      t.base_model,
      t.finished_at,
      -- The model that it goes back to: a job may have tuned a fine-tuned one.
      LOWER(
        CASE
          WHEN COALESCE(t.base_model, m.model) LIKE 'ft:%:%'
            THEN SPLIT_PART(COALESCE(t.base_model, m.model, ''), ':', 2)
          WHEN COALESCE(t.base_model, m.model) LIKE '%.ft-%'
            THEN SPLIT_PART(COALESCE(t.base_model, m.model, ''), '.ft-', 1)
          ELSE t.base_model
        END
      ) AS root
    FROM made AS m
    LEFT JOIN tuned AS t
      ON t.account = m.account AND t.fine_tuning_job_id = m.fine_tuning_job_id
  ),

  -- Of several rows of a name, the earliest date counts.
  dated AS (
    SELECT
      LOWER(model) AS name,
      CAST(retires_at AS DATE) AS retires_at,
      replacement,
      note,
      ROW_NUMBER() OVER (PARTITION BY LOWER(model) ORDER BY retires_at NULLS LAST, replacement, note) AS place
    FROM retirements
  ),

  retiring AS (
    SELECT name, retires_at, replacement, note
    FROM dated
    WHERE place = 1
  )

SELECT
  k.account,
  k.fine_tuning_job_id,
  k.model,
  k.checkpoint_id,
  k.step_number,
  k.final = 1 AS is_final,
  k.base_model,
  CASE
    WHEN l.seen_at = a.listed_at THEN TRUE
    -- Hosts list a model some time after the job has ended.
    WHEN l.seen_at IS NULL AND EPOCH(k.finished_at) + 3600 > EPOCH(a.listed_at) THEN NULL
    WHEN s.account IS NOT NULL THEN FALSE
  END AS is_callable,
  l.seen_at AS last_seen_at,
  a.listed_at,
  COALESCE(r.retires_at, b.retires_at, CAST(l.served_until AT TIME ZONE 'UTC' AS DATE)) AS retires_at,
  CASE WHEN r.name IS NULL THEN b.replacement ELSE r.replacement END AS replacement,
  CASE WHEN r.name IS NULL THEN b.note ELSE r.note END AS note
FROM known AS k
LEFT JOIN listed AS l
  ON l.account = k.account AND l.name = k.name
LEFT JOIN listings AS a
  ON a.account = k.account
LEFT JOIN shown AS s
  ON s.account = k.account AND s.final = k.final
LEFT JOIN retiring AS r
  ON r.name = k.name
LEFT JOIN retiring AS b
  ON b.name = k.root
