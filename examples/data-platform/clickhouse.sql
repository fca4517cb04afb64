-- The two topics in ClickHouse, by its Kafka engine, and the queries. Put your addresses into both tables of a topic.
CREATE TABLE task_events (
    event_id String, action String, app_type String, instance_id String, task_id Nullable(String), actor_id Nullable(String),
    occurred_at DateTime64(3, 'UTC')
) ENGINE = ReplacingMergeTree ORDER BY event_id;

CREATE TABLE task_events_topic (
    event_id String, action String, app_type String, instance_id String, task_id Nullable(String), actor_id Nullable(String),
    occurred_at DateTime64(3, 'UTC')
) ENGINE = Kafka SETTINGS kafka_broker_list = '127.0.0.1:9092', kafka_topic_list = 'taskbridge.task-events.v1',
    kafka_group_name = 'clickhouse-events', kafka_format = 'AvroConfluent', kafka_handle_error_mode = 'stream',
    format_avro_schema_registry_url = 'http://127.0.0.1:8081/apis/ccompat/v7';

CREATE MATERIALIZED VIEW task_events_landing TO task_events AS SELECT * FROM task_events_topic WHERE _error = '';

-- All fields of a task, in the order of the schema: an array of records is read as a whole.
CREATE TABLE task_states (
    instance_id String, app_type String, process_name Nullable(String), result Nullable(String),
    finished_at Nullable(DateTime64(3, 'UTC')),
    tasks Array(Tuple(
        task_id String, status String, assignee_ids Array(String), actor_id Nullable(String), url Nullable(String),
        created_at Nullable(DateTime64(3, 'UTC')), decided_at Nullable(DateTime64(3, 'UTC')),
        outcome Nullable(String), remark Nullable(String), step_name Nullable(String), step_id Nullable(String),
        decided_by Nullable(String), due_at Nullable(DateTime64(3, 'UTC'))
    )),
    place UInt64
) ENGINE = ReplacingMergeTree(place) ORDER BY instance_id;

CREATE TABLE task_states_topic (
    instance_id String, app_type String, process_name Nullable(String), result Nullable(String),
    finished_at Nullable(DateTime64(3, 'UTC')),
    tasks Array(Tuple(
        task_id String, status String, assignee_ids Array(String), actor_id Nullable(String), url Nullable(String),
        created_at Nullable(DateTime64(3, 'UTC')), decided_at Nullable(DateTime64(3, 'UTC')),
        outcome Nullable(String), remark Nullable(String), step_name Nullable(String), step_id Nullable(String),
        decided_by Nullable(String), due_at Nullable(DateTime64(3, 'UTC'))
    ))
) ENGINE = Kafka SETTINGS kafka_broker_list = '127.0.0.1:9092', kafka_topic_list = 'taskbridge.task-states.v1',
    kafka_group_name = 'clickhouse-states', kafka_format = 'AvroConfluent', kafka_handle_error_mode = 'stream',
    format_avro_schema_registry_url = 'http://127.0.0.1:8081/apis/ccompat/v7';

CREATE MATERIALIZED VIEW task_states_landing TO task_states AS
SELECT *, _offset AS place FROM task_states_topic WHERE _error = '';

-- The engine skips tombstones: the events say which instances are gone.
CREATE VIEW instances AS
SELECT * FROM task_states FINAL
WHERE instance_id NOT IN (SELECT instance_id FROM task_events WHERE action = 'DELETED');

CREATE VIEW tasks AS
SELECT
    instance_id, app_type, process_name, task.task_id AS task_id, task.status AS status, task.assignee_ids AS assignee_ids,
    task.actor_id AS actor_id, task.created_at AS created_at, task.decided_at AS decided_at, task.step_name AS step_name,
    task.decided_by AS decided_by
FROM instances ARRAY JOIN tasks AS task;

-- Seconds from a task's creation to its decision, by app and week.
CREATE VIEW time_to_decide AS
SELECT
    app_type, toMonday(assumeNotNull(decided_at)) AS week, count() AS decided,
    quantileExactInclusive(0.5)(took) AS median_s, quantileExactInclusive(0.9)(took) AS p90_s
FROM (
    SELECT *, dateDiff('millisecond', created_at, decided_at) / 1000 AS took
    FROM tasks WHERE status = 'COMPLETED' AND created_at IS NOT NULL
)
GROUP BY ALL ORDER BY ALL;

-- Seconds at each step of a process.
CREATE VIEW time_per_step AS
SELECT
    app_type, process_name, step_name, count() AS decided, quantileExactInclusive(0.5)(took) AS median_s,
    quantileExactInclusive(0.9)(took) AS p90_s, sum(took) AS total_s
FROM (
    SELECT *, dateDiff('millisecond', created_at, decided_at) / 1000 AS took
    FROM tasks WHERE status = 'COMPLETED' AND created_at IS NOT NULL AND step_name IS NOT NULL
)
GROUP BY ALL ORDER BY ALL;

-- The step at which the most time of a process passes.
CREATE VIEW bottlenecks AS
SELECT app_type, process_name, argMax(step_name, total_s) AS step, max(total_s) AS longest_s
FROM time_per_step
GROUP BY ALL ORDER BY ALL;

-- How many decisions were automatic, or of a delegate, of those of which it is known.
CREATE VIEW deciders AS
SELECT
    app_type, process_name, count() AS decided, countIf(decided_by = 'AUTOMATIC') AS automatic,
    countIf(decided_by = 'DELEGATE') AS delegated, automatic / decided AS automatic_share
FROM tasks
WHERE status = 'COMPLETED' AND decided_by IS NOT NULL
GROUP BY ALL ORDER BY ALL;

-- Open tasks by age in days.
CREATE VIEW open_tasks AS
SELECT app_type, intDiv(dateDiff('second', created_at, now()), 86400) AS days, count() AS open
FROM tasks
WHERE status = 'PENDING'
GROUP BY ALL ORDER BY ALL;

-- What each person has to do, and has done.
CREATE VIEW load AS
SELECT user_id, countIf(open) AS pending, countIf(NOT open) AS decided
FROM (
    SELECT arrayJoin(assignee_ids) AS user_id, true AS open FROM tasks WHERE status = 'PENDING'
    UNION ALL
    SELECT assumeNotNull(actor_id), false FROM tasks WHERE status = 'COMPLETED' AND actor_id IS NOT NULL
)
GROUP BY ALL ORDER BY ALL;

-- How instances ended.
CREATE VIEW results AS
SELECT app_type, process_name, result, count() AS instances
FROM instances
WHERE finished_at IS NOT NULL
GROUP BY ALL ORDER BY ALL;

-- What was cancelled.
CREATE VIEW cancelled AS
SELECT app_type, process_name, count() AS tasks
FROM tasks
WHERE status = 'CANCELLED'
GROUP BY ALL ORDER BY ALL;
