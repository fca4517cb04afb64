package taskbridge.bench;

import java.util.Map;
import java.util.concurrent.ExecutionException;
import org.springframework.context.annotation.Profile;
import org.springframework.http.MediaType;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestBody;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.RestController;

/** A request keeps its thread until Kafka has acknowledged the event. */
@RestController
@Profile("!asynchronous & !webflux")
class Waiting {
    private final Receiver.Publisher publisher;

    Waiting(Receiver.Publisher publisher) {
        this.publisher = publisher;
    }

    @PostMapping(path = "/yida/tasks/{action}", consumes = MediaType.APPLICATION_JSON_VALUE)
    Receiver.Answer json(@PathVariable String action, @RequestBody Map<String, String> parameters) {
        return answer(action, parameters);
    }

    @PostMapping(path = "/yida/tasks/{action}", consumes = MediaType.APPLICATION_FORM_URLENCODED_VALUE)
    Receiver.Answer form(@PathVariable String action, @RequestParam Map<String, String> parameters) {
        return answer(action, parameters);
    }

    private Receiver.Answer answer(String action, Map<String, String> parameters) {
        var sent = publisher.send(action, parameters);
        try {
            sent.delivered().get();
        } catch (ExecutionException | InterruptedException error) {
            throw Receiver.notDurable(error);
        }
        return sent.answer();
    }
}
