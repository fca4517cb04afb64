package subscriber;

import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Writes everybody's four lists to a SQLite file, each change once: a subscriber to copy and change.
 *
 * <p>Its arguments: BOOTSTRAP_SERVERS REGISTRY_URL FILE. Start it twice with the same file: the two share the work.
 * Ctrl-C and SIGTERM end it.
 */
public final class Subscriber {
    private static final Logger LOG = LoggerFactory.getLogger(Subscriber.class);

    public static void main(String[] args) throws Exception {
        Map<String, Object> config = Map.of(
                "bootstrap.servers", args[0],
                "group.id", "example-java",
                "auto.offset.reset", "earliest",
                "enable.auto.commit", false,
                "isolation.level", "read_committed");
        var decoder = new Decoder(args[1]);
        try (var consumer = new KafkaConsumer<>(config, new StringDeserializer(), new ByteArrayDeserializer());
                var lists = new Lists(args[2])) {
            endOnSignal(consumer);
            consumer.subscribe(List.of("taskbridge.task-notifications.v1"));
            while (true) {
                for (var record : consumer.poll(Duration.ofSeconds(1))) {
                    apply(record, decoder, lists);
                }
                lists.commit();
                commit(consumer);
            }
        } catch (WakeupException e) {
            LOG.info("told to end");
        }
    }

    /** Without the registry the program ends, with nothing committed; its supervisor restarts it. */
    private static void apply(ConsumerRecord<String, byte[]> record, Decoder decoder, Lists lists) throws Exception {
        try {
            lists.apply(decoder.decode(record.value()));
        } catch (UndecodableException e) {
            LOG.warn("passed over: {}-{}@{}", record.topic(), record.partition(), record.offset(), e);
        }
    }

    /** An uncommitted record is committed with the next ones, or comes again and changes nothing. */
    private static void commit(KafkaConsumer<?, ?> consumer) {
        try {
            consumer.commitSync();
        } catch (CommitFailedException | RetriableException e) {
            LOG.warn("not committed yet", e);
        }
    }

    private static void endOnSignal(KafkaConsumer<?, ?> consumer) {
        var main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            consumer.wakeup();
            try {
                main.join();
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
        }));
    }
}
