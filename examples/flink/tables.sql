-- The topics as tables. A query ends at the end of the topics when it began; without 'scan.bounded.mode' it continues.
-- The schema in each selects the fields of a record, all nullable. Times are milliseconds since 1970, UTC.
SET 'table.local-time-zone' = 'UTC';

CREATE TEMPORARY TABLE task_states (
    instance_id STRING,
    app_type STRING,
    process_name STRING,
    `result` STRING,
    finished_at BIGINT,
    tasks ARRAY<ROW<
        task_id STRING, status STRING, assignee_ids ARRAY<STRING>, actor_id STRING, created_at BIGINT,
        decided_at BIGINT, step_name STRING, decided_by STRING
    >>,
    PRIMARY KEY (instance_id) NOT ENFORCED
) WITH (
    'connector' = 'upsert-kafka',
    'topic' = 'taskbridge.task-states.v1',
    'properties.bootstrap.servers' = '127.0.0.1:9092',
    'properties.isolation.level' = 'read_committed',
    'scan.bounded.mode' = 'latest-offset',
    'key.format' = 'raw',
    'value.format' = 'avro-confluent',
    'value.avro-confluent.url' = 'http://127.0.0.1:8081/apis/ccompat/v7',
    'value.avro-confluent.schema' = '{
        "type": "record", "name": "TaskState", "namespace": "taskbridge.v1", "fields": [
            {"name": "instance_id", "type": "string"},
            {"name": "app_type", "type": ["null", "string"]},
            {"name": "process_name", "type": ["null", "string"]},
            {"name": "result", "type": ["null", "string"]},
            {"name": "finished_at", "type": ["null", "long"]},
            {"name": "tasks", "type": ["null", {"type": "array", "items": ["null", {
                "type": "record", "name": "TaskEntry", "fields": [
                    {"name": "task_id", "type": ["null", "string"]},
                    {"name": "status", "type": ["null", {
                        "type": "enum", "name": "Status", "default": "UNKNOWN",
                        "symbols": ["PENDING", "COMPLETED", "CANCELLED", "ACTIVE", "UNKNOWN"]
                    }]},
                    {"name": "assignee_ids", "type": ["null", {"type": "array", "items": ["null", "string"]}]},
                    {"name": "actor_id", "type": ["null", "string"]},
                    {"name": "created_at", "type": ["null", "long"]},
                    {"name": "decided_at", "type": ["null", "long"]},
                    {"name": "step_name", "type": ["null", "string"]},
                    {"name": "decided_by", "type": ["null", "string"]}
                ]
            }]}]}
        ]
    }'
);

CREATE TEMPORARY TABLE task_events (
    event_id STRING,
    action STRING,
    app_type STRING,
    instance_id STRING,
    occurred_at BIGINT
) WITH (
    'connector' = 'kafka',
    'topic' = 'taskbridge.task-events.v1',
    'properties.bootstrap.servers' = '127.0.0.1:9092',
    'properties.isolation.level' = 'read_committed',
    'scan.startup.mode' = 'earliest-offset',
    'scan.bounded.mode' = 'latest-offset',
    'format' = 'avro-confluent',
    'avro-confluent.url' = 'http://127.0.0.1:8081/apis/ccompat/v7',
    'avro-confluent.schema' = '{
        "type": "record", "name": "TaskEvent", "namespace": "taskbridge.v1", "fields": [
            {"name": "event_id", "type": ["null", "string"]},
            {"name": "action", "type": ["null", {
                "type": "enum", "name": "Action", "default": "UNKNOWN",
                "symbols": ["CREATED", "COMPLETED", "CANCELLED", "DELETED", "COPIED", "UNKNOWN"]
            }]},
            {"name": "app_type", "type": ["null", "string"]},
            {"name": "instance_id", "type": ["null", "string"]},
            {"name": "occurred_at", "type": ["null", "long"]}
        ]
    }'
);
