-- An account: when it was last synced, whether that succeeded, and what is known of its jobs.
--
-- account: Label of the account.
-- last_sync_at: When its last sync ended, whether it succeeded or not.
-- last_success_at: When its last sync that succeeded ended: so old is the data. Null if none ever has.
-- last_status: done or failed: how the last sync ended.
-- last_error: Why the last sync failed; null if it did not.
-- failures: Syncs that have failed since the last success.
-- newest_job_at: When its newest job was created.
-- jobs: Jobs that the warehouse holds of it.
-- jobs_known: Jobs that syncs have read of it, as of the last success.
-- jobs_seen: Jobs that the host showed at the last success. The host is asked for new jobs only.
-- jobs_open: Jobs that the next sync reads again, as of the last success.
-- host: Host that was read last.
-- age_seconds: Seconds since last_success_at, as of the query; null if no sync ever succeeded.

WITH
  history AS (
    SELECT
      h.account,
      h.finished_at,
      h.status,
      h.error,
      h.host,
      h.jobs_known,
      h.jobs_seen,
      h.jobs_open,
      ROW_NUMBER() OVER (PARTITION BY h.account ORDER BY h.finished_at DESC) AS place,
      ROW_NUMBER() OVER (PARTITION BY h.account, h.status ORDER BY h.finished_at DESC) AS place_of_status,
      MAX(CASE WHEN h.status = 'done' THEN h.finished_at END) OVER (PARTITION BY h.account) AS success_at
    FROM sync_history AS h
  ),

  syncs_of_account AS (
    SELECT
      account,
      MAX(finished_at) AS last_sync_at,
      MAX(success_at) AS last_success_at,
      MAX(CASE WHEN place = 1 THEN status END) AS last_status,
      MAX(CASE WHEN place = 1 THEN error END) AS last_error,
      SUM(CASE WHEN success_at IS NULL OR finished_at > success_at THEN 1 ELSE 0 END) AS failures,
      MAX(CASE WHEN status = 'done' AND place_of_status = 1 THEN jobs_known END) AS known,
      MAX(CASE WHEN status = 'done' AND place_of_status = 1 THEN jobs_seen END) AS seen,
      MAX(CASE WHEN status = 'done' AND place_of_status = 1 THEN jobs_open END) AS still_open,
      MAX(CASE WHEN place = 1 THEN host END) AS last_host
    FROM history
    GROUP BY account
  ),

  jobs_of_account AS (
    SELECT
      account,
      COUNT(*) AS jobs,
      MAX(created_at) AS newest_job_at
    FROM jobs
    GROUP BY account
  )

SELECT
  s.account,
  s.last_sync_at,
  s.last_success_at,
  s.last_status,
  s.last_error,
  CAST(s.failures AS BIGINT) AS failures,
  j.newest_job_at,
  COALESCE(j.jobs, 0) AS jobs,
  s.known AS jobs_known,
  s.seen AS jobs_seen,
  s.still_open AS jobs_open,
  s.last_host AS host,
  EPOCH(CURRENT_TIMESTAMP) - EPOCH(s.last_success_at) AS age_seconds
FROM syncs_of_account AS s
LEFT JOIN jobs_of_account AS j
  ON j.account = s.account
