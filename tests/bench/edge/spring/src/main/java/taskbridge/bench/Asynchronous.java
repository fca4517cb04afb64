package taskbridge.bench;

import java.util.Map;
import java.util.concurrent.CompletableFuture;
import org.springframework.context.annotation.Profile;
import org.springframework.http.MediaType;
import org.springframework.util.MultiValueMap;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestBody;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.server.ServerWebExchange;

/** Variants: no thread waits for Kafka, with Spring MVC and with WebFlux. */
final class Asynchronous {
    @RestController
    @Profile("asynchronous | webflux")
    record OfJson(Receiver.Publisher publisher) {
        @PostMapping(path = "/yida/tasks/{action}", consumes = MediaType.APPLICATION_JSON_VALUE)
        CompletableFuture<Receiver.Answer> json(
                @PathVariable String action, @RequestBody Map<String, String> parameters) {
            return answer(publisher, action, parameters);
        }
    }

    @RestController
    @Profile("asynchronous")
    record OfForms(Receiver.Publisher publisher) {
        @PostMapping(path = "/yida/tasks/{action}", consumes = MediaType.APPLICATION_FORM_URLENCODED_VALUE)
        CompletableFuture<Receiver.Answer> form(
                @PathVariable String action, @RequestBody MultiValueMap<String, String> parameters) {
            return answer(publisher, action, parameters.toSingleValueMap());
        }
    }

    /** WebFlux gives forms by the exchange alone. */
    @RestController
    @Profile("webflux")
    record OfWebFluxForms(Receiver.Publisher publisher) {
        @PostMapping(path = "/yida/tasks/{action}", consumes = MediaType.APPLICATION_FORM_URLENCODED_VALUE)
        CompletableFuture<Receiver.Answer> form(@PathVariable String action, ServerWebExchange exchange) {
            return exchange.getFormData().toFuture().thenCompose(
                    parameters -> answer(publisher, action, parameters.toSingleValueMap()));
        }
    }

    private static CompletableFuture<Receiver.Answer> answer(
            Receiver.Publisher publisher, String action, Map<String, String> parameters) {
        var sent = publisher.send(action, parameters);
        return sent.delivered().handle((result, error) -> {
            if (error != null) {
                throw Receiver.notDurable(error);
            }
            return sent.answer();
        });
    }
}
