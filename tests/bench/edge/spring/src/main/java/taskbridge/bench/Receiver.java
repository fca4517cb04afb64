package taskbridge.bench;

import java.util.Map;
import java.util.concurrent.CompletableFuture;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.http.HttpStatus;
import org.springframework.kafka.core.KafkaTemplate;
import org.springframework.stereotype.Component;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.server.ResponseStatusException;

/** Takes callbacks as JSON or form, and answers once Kafka has acknowledged the event. */
@SpringBootApplication
@RestController
public class Receiver {
    public record Answer(boolean success, String eventId, String durability) {}

    record Sent(String eventId, CompletableFuture<?> delivered) {
        Answer answer() {
            return new Answer(true, eventId, "kafka");
        }
    }

    @Component
    static class Publisher {
        private final KafkaTemplate<byte[], byte[]> kafka;
        private final Events events;
        private final String topic;

        Publisher(
                KafkaTemplate<byte[], byte[]> kafka,
                @Value("${PEER_TOPIC}") String topic,
                @Value("${PEER_SCHEMA_ID}") int schemaId,
                @Value("${PEER_APP_TYPE}") String appType,
                @Value("${PEER_SYSTEM_TOKEN}") String systemToken) {
            this.kafka = kafka;
            this.topic = topic;
            this.events = new Events(schemaId, Map.of(appType, systemToken));
        }

        Sent send(String action, Map<String, String> parameters) {
            try {
                var event = events.understand(action, parameters, System.currentTimeMillis());
                var record =
                        new ProducerRecord<>(topic, null, events.key(event), events.encode(event), Events.headers(event));
                return new Sent(event.getEventId(), kafka.send(record));
            } catch (Events.Unverified unverified) {
                throw new ResponseStatusException(HttpStatus.UNAUTHORIZED, "unverified");
            } catch (Events.Malformed malformed) {
                throw new ResponseStatusException(HttpStatus.BAD_REQUEST, "malformed");
            } catch (Exception notSent) {
                throw notDurable(notSent);
            }
        }
    }

    static ResponseStatusException notDurable(Throwable error) {
        return new ResponseStatusException(HttpStatus.SERVICE_UNAVAILABLE, "not durable", error);
    }

    @GetMapping("/healthz")
    String healthz() {
        return "ok";
    }

    public static void main(String[] arguments) {
        SpringApplication.run(Receiver.class, arguments);
    }
}
