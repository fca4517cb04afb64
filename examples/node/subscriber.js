// Writes everybody's four lists to a SQLite file, each change once: a subscriber to copy and change.
//
//     node subscriber.js BOOTSTRAP_SERVERS REGISTRY_URL FILE
//
// Start it twice with the same file: the two share the work. Ctrl-C and SIGTERM end it.

import { DatabaseSync } from "node:sqlite";
import { SchemaRegistry } from "@kafkajs/confluent-schema-registry";
import { Kafka, logLevel } from "kafkajs";

const TABLES = `
  PRAGMA busy_timeout = 60000;
  PRAGMA journal_mode = WAL;
  CREATE TABLE IF NOT EXISTS seen (notification_id TEXT PRIMARY KEY, at INTEGER DEFAULT (unixepoch())) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS entries (
    corp_id TEXT, user_id TEXT, view TEXT, instance_id TEXT, task_id TEXT, title TEXT, status TEXT, entered_at INTEGER,
    PRIMARY KEY (corp_id, user_id, view, instance_id, task_id)
  ) WITHOUT ROWID;
  DELETE FROM seen WHERE at < unixepoch() - 8 * 86400;  -- the topic keeps seven days
`;

const [servers, registryUrl, path] = process.argv.slice(2);
const file = new DatabaseSync(path);
file.exec(TABLES);
const isNew = file.prepare("INSERT OR IGNORE INTO seen (notification_id) VALUES (?)");
const put = file.prepare("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
const takeAway = file.prepare(
  "DELETE FROM entries WHERE (corp_id, user_id, view, instance_id, task_id) = (?, ?, ?, ?, ?)",
);

/** Change the lists and record the id in one transaction: a repeat changes nothing. */
function apply(told) {
  // In SQL no two nulls are equal, and an entry about a whole instance has no task.
  const entry = [told.corp_id, told.recipient_id, told.view, told.instance_id, told.task_id ?? ""];
  file.exec("BEGIN IMMEDIATE");
  try {
    if (isNew.run(told.notification_id).changes) {
      if (told.change === "REMOVED") takeAway.run(...entry);
      else if (["ADDED", "UPDATED"].includes(told.change)) {
        put.run(...entry, told.title, told.status, told.entered_at ?? told.occurred_at);
      }
    }
    file.exec("COMMIT");
  } catch (error) {
    file.exec("ROLLBACK");
    throw error;
  }
}

const registry = new SchemaRegistry({ host: registryUrl });

/** The record as it was written; undefined when it cannot be decoded. Without the registry it throws: try again. */
async function decode({ topic, partition, message }) {
  try {
    return await registry.decode(message.value);
  } catch (error) {
    if (error.name === "ResponseError" && error.status !== 404) throw error;
    console.error(`passed over: ${topic}/${partition}@${message.offset} cannot be decoded: ${error.message}`);
  }
}

const kafka = new Kafka({ brokers: servers.split(","), logLevel: logLevel.WARN });
// By default kafkajs reads committed records, and commits after eachMessage returns.
const consumer = kafka.consumer({ groupId: "example-node", sessionTimeout: 10_000 });
consumer.on(consumer.events.CRASH, ({ payload }) => {
  if (!payload.restart) process.exit(1); // its supervisor restarts it
});
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, async () => {
    await consumer.disconnect();
    process.exit(); // kafkajs may have left a connection of before a broker's death
  });
}

await consumer.connect();
await consumer.subscribe({ topic: "taskbridge.task-notifications.v1", fromBeginning: true });
await consumer.run({
  eachMessage: async (record) => {
    const told = await decode(record);
    if (told) apply(told);
  },
});
