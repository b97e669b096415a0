-- Every sync that completed, and those that failed: how fresh the data is, and what each sync did.
--
-- account: Label of the account that was read.
-- sync_id: Id of the sync; unique within an account.
-- started_at: When it started.
-- finished_at: When it had read everything.
-- seconds: Seconds between the two.
-- requests: Requests sent, retries included.
-- retries: Requests that were sent again.
-- jobs_seen: Jobs that the host showed.
-- jobs_open: Jobs that the next sync will read again.
-- rejected: Records that do not fit, as a whole or in a value.
-- skipped: What was skipped and why, as a JSON array.
-- version: Release that did it.
-- load_id: The load that completed it: rows that it brought have it as _dlt_load_id.
-- status: done or failed.
-- error: Why it failed.
-- rows_loaded: Rows that were new or changed, by table, as a JSON object.
-- jobs_known: Jobs of the account that this sync and those before it have read.
-- newest_job_at: When the newest job was created that the host showed.
-- host: Host that was read.

SELECT
  s.account,
  s.id AS sync_id,
  s.started_at,
  s.finished_at,
  EPOCH(s.finished_at) - EPOCH(s.started_at) AS seconds,
  s.requests,
  s.retries,
  s.jobs_seen,
  s.jobs_open,
  s.rejected,
  s.skipped,
  s.version,
  s._dlt_load_id AS load_id,
  COALESCE(s.status, 'done') AS status,
  s.error,
  s.rows_loaded,
  s.jobs_known,
  s.newest_job_at,
  s.host
FROM syncs AS s
JOIN _dlt_loads AS l
  ON l.load_id = s._dlt_load_id AND l.status = 0
