package subscriber;

import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;
import org.springframework.kafka.annotation.KafkaListener;
import org.springframework.kafka.listener.DefaultErrorHandler;
import org.springframework.util.backoff.FixedBackOff;

/**
 * Writes everybody's four lists to a SQLite file, each change once: a subscriber to copy and change.
 *
 * <p>Its arguments: --spring.kafka.bootstrap-servers=SERVERS --registry=URL --lists=FILE. Start it twice with the same
 * file: the two share the work. Ctrl-C and SIGTERM end it. How it reads is in application.properties.
 */
@SpringBootApplication
class SpringSubscriber {
    private static final Logger LOG = LoggerFactory.getLogger(SpringSubscriber.class);

    private final Decoder decoder;
    private final TaskLists lists;

    SpringSubscriber(@Value("${registry}") String registryUrl, TaskLists lists) {
        this.decoder = new Decoder(registryUrl);
        this.lists = lists;
    }

    public static void main(String[] args) {
        SpringApplication.run(SpringSubscriber.class, args);
    }

    /** The records of a poll are committed when this has returned for all of them. */
    @KafkaListener(topics = "taskbridge.task-notifications.v1")
    void apply(ConsumerRecord<String, byte[]> record) throws Exception {
        lists.apply(decoder.decode(record.value()));
    }

    /** Retries for ever, once a second; logs and skips only records that can never be decoded. */
    @Bean
    static DefaultErrorHandler errorHandler() {
        var handler = new DefaultErrorHandler(new FixedBackOff(1000, FixedBackOff.UNLIMITED_ATTEMPTS));
        handler.setClassifications(Map.of(UndecodableException.class, false), true);
        handler.setRetryListeners((record, failure, attempt) -> LOG.warn("not done yet: {}-{}@{}, {}",
                record.topic(), record.partition(), record.offset(), failure.getCause().toString()));
        return handler;
    }
}
