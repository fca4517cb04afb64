CREATE TEMPORARY VIEW tasks AS
SELECT s.instance_id, s.app_type, s.process_name, t.*
FROM task_states AS s
CROSS JOIN UNNEST(s.tasks) AS t (task_id, status, assignee_ids, actor_id, created_at, decided_at, step_name, decided_by);

-- Seconds from a task's creation to its decision, by app and week.
CREATE TEMPORARY VIEW time_to_decide AS
SELECT app_type, week, COUNT(*) AS decided, PERCENTILE(took, 0.5) AS median_s, PERCENTILE(took, 0.9) AS p90_s
FROM (
    SELECT
        app_type,
        TIMESTAMPADD(DAY, CAST((decided_at / 86400000 + 3) / 7 * 7 - 3 AS INT), DATE '1970-01-01') AS week,
        CAST(decided_at - created_at AS DOUBLE) / 1000 AS took
    FROM tasks
    WHERE status = 'COMPLETED' AND created_at IS NOT NULL
)
GROUP BY app_type, week;

-- Seconds at each step of a process.
CREATE TEMPORARY VIEW time_per_step AS
SELECT
    app_type, process_name, step_name, COUNT(*) AS decided, PERCENTILE(took, 0.5) AS median_s,
    PERCENTILE(took, 0.9) AS p90_s, SUM(took) AS total_s
FROM (
    SELECT app_type, process_name, step_name, CAST(decided_at - created_at AS DOUBLE) / 1000 AS took
    FROM tasks
    WHERE status = 'COMPLETED' AND created_at IS NOT NULL AND step_name IS NOT NULL
)
GROUP BY app_type, process_name, step_name;

-- The step at which the most time of a process passes.
CREATE TEMPORARY VIEW bottlenecks AS
SELECT app_type, process_name, step_name, total_s
FROM (
    SELECT *, ROW_NUMBER() OVER (PARTITION BY app_type, process_name ORDER BY total_s DESC) AS place FROM time_per_step
)
WHERE place = 1;

-- How many decisions were automatic, or of a delegate, of those of which it is known.
CREATE TEMPORARY VIEW deciders AS
SELECT
    app_type, process_name, COUNT(*) AS decided, COUNT(*) FILTER (WHERE decided_by = 'AUTOMATIC') AS automatic,
    COUNT(*) FILTER (WHERE decided_by = 'DELEGATE') AS delegated,
    AVG(CASE WHEN decided_by = 'AUTOMATIC' THEN 1E0 ELSE 0E0 END) AS automatic_share
FROM tasks
WHERE status = 'COMPLETED' AND decided_by IS NOT NULL
GROUP BY app_type, process_name;

-- Open tasks by day of creation: their age changes without a record, which Flink would not notice.
CREATE TEMPORARY VIEW open_since AS
SELECT app_type, `day`, COUNT(*) AS `open`
FROM (SELECT app_type, CAST(TO_TIMESTAMP_LTZ(created_at, 3) AS DATE) AS `day` FROM tasks WHERE status = 'PENDING')
GROUP BY app_type, `day`;

-- What each person has to do, and has done.
CREATE TEMPORARY VIEW `load` AS
SELECT user_id, COUNT(*) FILTER (WHERE `open`) AS pending, COUNT(*) FILTER (WHERE NOT `open`) AS decided
FROM (
    SELECT a.user_id, TRUE AS `open`
    FROM tasks CROSS JOIN UNNEST(assignee_ids) AS a (user_id) WHERE status = 'PENDING'
    UNION ALL
    SELECT actor_id, FALSE FROM tasks WHERE status = 'COMPLETED' AND actor_id IS NOT NULL
)
GROUP BY user_id;

-- How instances ended.
CREATE TEMPORARY VIEW results AS
SELECT app_type, process_name, `result`, COUNT(*) AS instances
FROM task_states
WHERE finished_at IS NOT NULL
GROUP BY app_type, process_name, `result`;

-- What was cancelled.
CREATE TEMPORARY VIEW cancelled AS
SELECT app_type, process_name, COUNT(*) AS tasks
FROM tasks
WHERE status = 'CANCELLED'
GROUP BY app_type, process_name;

-- What happened, each event once, without repeats.
CREATE TEMPORARY VIEW events AS
SELECT action, COUNT(DISTINCT event_id) AS events FROM task_events GROUP BY action;

SELECT * FROM time_to_decide;
SELECT * FROM time_per_step;
SELECT * FROM bottlenecks;
SELECT * FROM deciders;
SELECT * FROM open_since;
SELECT * FROM `load`;
SELECT * FROM results;
SELECT * FROM cancelled;
SELECT * FROM events;
