-- The files, each event and each instance once, without repeats. Before it: SET VARIABLE folder = 'FOLDER'
-- By name: older files have fewer columns.
CREATE OR REPLACE VIEW task_events AS
FROM read_parquet(getvariable('folder') || '/task_events/*/*.parquet', union_by_name = true)
QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY "partition", "offset") = 1;

-- The last record of an instance is current: all of them are in one partition. A tombstone has no lifecycle.
CREATE OR REPLACE VIEW task_states AS
FROM (
    FROM read_parquet(getvariable('folder') || '/task_states/*/*.parquet', union_by_name = true)
    QUALIFY row_number() OVER (PARTITION BY instance_id ORDER BY "offset" DESC) = 1
)
WHERE lifecycle IS NOT NULL;

CREATE OR REPLACE VIEW tasks AS
SELECT instance_id, app_type, process_name, unnest(tasks, max_depth := 2) FROM task_states;

-- Seconds from a task's creation to its decision, by app and week.
CREATE OR REPLACE VIEW time_to_decide AS
SELECT
    app_type,
    date_trunc('week', make_timestamp(decided_at * 1000))::DATE AS week,
    count(*) AS decided,
    median((decided_at - created_at) / 1000) AS median_s,
    quantile_cont((decided_at - created_at) / 1000, 0.9) AS p90_s
FROM tasks
WHERE status = 'COMPLETED' AND created_at IS NOT NULL
GROUP BY ALL ORDER BY ALL;

-- Seconds at each step of a process.
CREATE OR REPLACE VIEW time_per_step AS
SELECT
    app_type, process_name, step_name, count(*) AS decided, median(took) AS median_s, quantile_cont(took, 0.9) AS p90_s,
    sum(took) AS total_s
FROM (
    SELECT *, (decided_at - created_at) / 1000 AS took
    FROM tasks WHERE status = 'COMPLETED' AND created_at IS NOT NULL AND step_name IS NOT NULL
)
GROUP BY ALL ORDER BY ALL;

-- The step at which the most time of a process passes.
CREATE OR REPLACE VIEW bottlenecks AS
SELECT app_type, process_name, arg_max(step_name, total_s) AS step_name, max(total_s) AS total_s
FROM time_per_step
GROUP BY ALL ORDER BY ALL;

-- How many decisions were automatic, or of a delegate, of those of which it is known.
CREATE OR REPLACE VIEW deciders AS
SELECT
    app_type, process_name, count(*) AS decided, count(*) FILTER (decided_by = 'AUTOMATIC') AS automatic,
    count(*) FILTER (decided_by = 'DELEGATE') AS delegated, automatic / decided AS automatic_share
FROM tasks
WHERE status = 'COMPLETED' AND decided_by IS NOT NULL
GROUP BY ALL ORDER BY ALL;

-- Open tasks by age in days; now, unless SET VARIABLE now_ms = … says when.
CREATE OR REPLACE VIEW open_tasks AS
SELECT app_type, (coalesce(getvariable('now_ms'), epoch_ms(now())) - created_at) // 86400000 AS days, count(*) AS open
FROM tasks
WHERE status = 'PENDING'
GROUP BY ALL ORDER BY ALL;

-- What each person has to do, and has done.
CREATE OR REPLACE VIEW load AS
SELECT user_id, count(*) FILTER (open) AS pending, count(*) FILTER (NOT open) AS decided
FROM (
    SELECT unnest(assignee_ids) AS user_id, true AS open FROM tasks WHERE status = 'PENDING'
    UNION ALL
    SELECT actor_id, false FROM tasks WHERE status = 'COMPLETED' AND actor_id IS NOT NULL
)
GROUP BY ALL ORDER BY ALL;

-- How instances ended.
CREATE OR REPLACE VIEW results AS
SELECT app_type, process_name, result, count(*) AS instances
FROM task_states
WHERE finished_at IS NOT NULL
GROUP BY ALL ORDER BY ALL;

-- What was cancelled.
CREATE OR REPLACE VIEW cancelled AS
SELECT app_type, process_name, count(*) AS tasks
FROM tasks
WHERE status = 'CANCELLED'
GROUP BY ALL ORDER BY ALL;
