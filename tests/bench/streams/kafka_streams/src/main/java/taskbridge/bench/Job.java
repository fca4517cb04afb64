package taskbridge.bench;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.state.Stores;

/** The reference job on Kafka Streams. Configured by the environment, ended by SIGTERM. */
public final class Job {
    private static final Map<String, String> GIVEN = System.getenv();
    private static final int READY_POLL_MS = 20;

    public static void main(String[] arguments) throws InterruptedException {
        var streams = new KafkaStreams(topology(), configuration());
        var over = new CountDownLatch(1);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            over.countDown();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
        while (!isReady(streams)) {
            Thread.sleep(READY_POLL_MS);
        }
        tellReady();
        over.await();
        System.exit(1);
    }

    private static Topology topology() {
        var store = Stores.keyValueStoreBuilder(
                Stores.persistentKeyValueStore(FoldProcessor.STORE), Serdes.ByteArray(), Serdes.ByteArray());
        return new Topology()
                .addSource("events", GIVEN.get("PEER_EVENTS_TOPIC"))
                .addProcessor("fold", () -> new FoldProcessor(new Codec(
                        Integer.parseInt(GIVEN.get("PEER_STATE_SCHEMA_ID")),
                        Integer.parseInt(GIVEN.get("PEER_NOTIFICATION_SCHEMA_ID")))), "events")
                .addStateStore(store.withCachingDisabled(), "fold")
                .addSink(FoldProcessor.STATES, GIVEN.get("PEER_STATES_TOPIC"), "fold")
                .addSink(FoldProcessor.NOTIFICATIONS, GIVEN.get("PEER_NOTIFICATIONS_TOPIC"), "fold");
    }

    private static Properties configuration() {
        var found = new Properties();
        found.put(StreamsConfig.APPLICATION_ID_CONFIG, GIVEN.get("PEER_GROUP"));
        found.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, GIVEN.get("PEER_BOOTSTRAP_SERVERS"));
        found.put(StreamsConfig.STATE_DIR_CONFIG, GIVEN.get("PEER_STATE_DIR"));
        found.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
        found.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
        found.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        found.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, GIVEN.get("PEER_GUARANTEE"));
        found.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, GIVEN.get("PEER_COMMIT_MS"));
        found.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        found.put(StreamsConfig.producerPrefix(ProducerConfig.ACKS_CONFIG), "all");
        found.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), GIVEN.get("PEER_LINGER_MS"));
        found.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 256 << 10);
        found.put(StreamsConfig.producerPrefix(ProducerConfig.BUFFER_MEMORY_CONFIG), 128 << 20);
        found.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        found.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 2000);
        found.put(StreamsConfig.restoreConsumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 10_000);
        return found;
    }

    /** All partitions are this client's, their stores at the ends of their changelogs. RUNNING alone is not it. */
    private static boolean isReady(KafkaStreams streams) {
        if (streams.state() != KafkaStreams.State.RUNNING) {
            return false;
        }
        var lags = streams.allLocalStorePartitionLags().get(FoldProcessor.STORE);
        return lags != null
                && lags.size() == Integer.parseInt(GIVEN.get("PEER_PARTITIONS"))
                && lags.values().stream().allMatch(each -> each.offsetLag() == 0);
    }

    private static void tellReady() {
        try {
            Files.createFile(Path.of(GIVEN.get("PEER_READY_FILE")));
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }
}
