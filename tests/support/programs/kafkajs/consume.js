// Reads topics with kafkajs as it comes, and prints each record that has one of the wanted keys: a JSON object a line.
// node consume.js BOOTSTRAP_SERVERS GROUP COUNT KEY TOPIC...
const { Kafka, logLevel } = require("kafkajs");

const [servers, groupId, count, key, ...topics] = process.argv.slice(2);
const kafka = new Kafka({ brokers: servers.split(","), logLevel: logLevel.ERROR });
const consumer = kafka.consumer({ groupId, retry: { retries: 0 } });
let left = Number(count);

// Of what passes, such as a coordinator that a new Kafka is still loading, it comes back by itself.
consumer.on(consumer.events.CRASH, ({ payload }) => {
  if (payload.restart) return;
  process.stderr.write(`${payload.error.name}: ${payload.error.message}\n`, () => process.exit(1));
});

async function main() {
  await consumer.connect();
  await consumer.subscribe({ topics, fromBeginning: true });
  await consumer.run({
    eachMessage: async ({ topic, message }) => {
      if (message.key === null || !message.key.toString().startsWith(key)) return;
      const value = message.value.toString("base64");
      const line = JSON.stringify({ topic, key: message.key.toString(), value });
      left -= 1;
      process.stdout.write(line + "\n", () => left === 0 && process.exit(0));
    },
  });
}

main().catch((error) => process.stderr.write(`${error.name}: ${error.message}\n`, () => process.exit(1)));
