CREATE TABLE IF NOT EXISTS seen (
    notification_id TEXT PRIMARY KEY, at INTEGER DEFAULT (unixepoch())
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
    corp_id TEXT, user_id TEXT, view TEXT, instance_id TEXT, task_id TEXT, title TEXT, status TEXT,
    entered_at TEXT, PRIMARY KEY (corp_id, user_id, view, instance_id, task_id)
) WITHOUT ROWID;
-- Deliveries that were given up can be replayed for 30 days.
DELETE FROM seen WHERE at < unixepoch() - 40 * 86400;
