package taskbridge.bench;

import java.util.Map;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.http.HttpStatus;
import org.springframework.http.MediaType;
import org.springframework.kafka.core.KafkaTemplate;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestBody;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.server.ResponseStatusException;

/** Accepts callbacks as JSON or form. A request keeps its (virtual) thread until Kafka has acknowledged the event. */
@SpringBootApplication
@RestController
public class Receiver {
    public record Answer(boolean success, String eventId, String durability) {}

    private final KafkaTemplate<byte[], byte[]> kafka;
    private final Events events;
    private final String topic;

    Receiver(
            KafkaTemplate<byte[], byte[]> kafka,
            @Value("${PEER_TOPIC}") String topic,
            @Value("${PEER_SCHEMA_ID}") int schemaId,
            @Value("${PEER_APP_TYPE}") String appType,
            @Value("${PEER_SYSTEM_TOKEN}") String systemToken) {
        this.kafka = kafka;
        this.topic = topic;
        this.events = new Events(schemaId, Map.of(appType, systemToken));
    }

    @PostMapping(path = "/yida/tasks/{action}", consumes = MediaType.APPLICATION_JSON_VALUE)
    Answer json(@PathVariable String action, @RequestBody Map<String, String> parameters) {
        return publish(action, parameters);
    }

    @PostMapping(path = "/yida/tasks/{action}", consumes = MediaType.APPLICATION_FORM_URLENCODED_VALUE)
    Answer form(@PathVariable String action, @RequestParam Map<String, String> parameters) {
        return publish(action, parameters);
    }

    @GetMapping("/healthz")
    String healthz() {
        return "ok";
    }

    private Answer publish(String action, Map<String, String> parameters) {
        try {
            var event = events.understand(action, parameters, System.currentTimeMillis());
            var record =
                    new ProducerRecord<>(topic, null, events.key(event), events.encode(event), Events.headers(event));
            kafka.send(record).get();
            return new Answer(true, event.getEventId(), "kafka");
        } catch (Events.Unverified unverified) {
            throw new ResponseStatusException(HttpStatus.UNAUTHORIZED, "unverified");
        } catch (Events.Malformed malformed) {
            throw new ResponseStatusException(HttpStatus.BAD_REQUEST, "malformed");
        } catch (Exception notSent) {
            throw new ResponseStatusException(HttpStatus.SERVICE_UNAVAILABLE, "not durable", notSent);
        }
    }

    public static void main(String[] arguments) {
        SpringApplication.run(Receiver.class, arguments);
    }
}
