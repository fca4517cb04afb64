package receiver;

import com.standardwebhooks.Webhook;
import com.standardwebhooks.exceptions.WebhookVerificationException;
import java.net.http.HttpHeaders;
import java.util.List;
import java.util.Map;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.http.ResponseEntity;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestBody;
import org.springframework.web.bind.annotation.RequestHeader;
import org.springframework.web.bind.annotation.RestController;

/**
 * Receives webhooks and writes everybody's four lists to a SQLite file, each change once: a receiver to copy and change.
 *
 * <p>Its arguments: --server.port=PORT --secret=whsec_… --lists=FILE. Ctrl-C and SIGTERM end it.
 */
@SpringBootApplication
@RestController
class WebhookReceiver {
    private final Webhook webhook;
    private final TaskLists lists;

    WebhookReceiver(@Value("${secret}") String secret, TaskLists lists) {
        this.webhook = new Webhook(secret);
        this.lists = lists;
    }

    public static void main(String[] args) {
        SpringApplication.run(WebhookReceiver.class, args);
    }

    /** Answers after the work: what fails is sent again. */
    @PostMapping("/hooks/tasks")
    ResponseEntity<String> receive(@RequestBody String body, @RequestHeader Map<String, String> headers) {
        try {
            webhook.verify(body, HttpHeaders.of(listed(headers), (name, value) -> true));
        } catch (WebhookVerificationException error) {
            return ResponseEntity.status(401).body(error.getMessage());
        }
        lists.apply(headers.get("webhook-id"), body);
        return ResponseEntity.noContent().build();
    }

    private static Map<String, List<String>> listed(Map<String, String> headers) {
        var found = new java.util.HashMap<String, List<String>>();
        headers.forEach((name, value) -> found.put(name, List.of(value)));
        return found;
    }
}
