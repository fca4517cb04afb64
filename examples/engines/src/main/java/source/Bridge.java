package source;

import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.time.Duration;
import java.time.Instant;
import java.util.Base64;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/** The bridge's endpoint for other systems. Requests are signed by Standard Webhooks. */
public final class Bridge {
    private static final Duration PATIENCE = Duration.ofSeconds(30);

    private final HttpClient http = HttpClient.newBuilder().connectTimeout(PATIENCE).build();
    private final URI address;
    private final SecretKeySpec key;

    public Bridge(String address, String secret) {
        this.address = URI.create(address);
        this.key = new SecretKeySpec(Base64.getDecoder().decode(secret.substring("whsec_".length())), "HmacSHA256");
    }

    /**
     * Returns when the event is durable. The same id and body may be posted repeatedly.
     *
     * @throws IOException it may not be durable: post it again
     */
    public void post(String id, String body) throws IOException {
        var moment = Long.toString(Instant.now().getEpochSecond());
        try {
            var mac = Mac.getInstance(key.getAlgorithm());
            mac.init(key);
            var proof = mac.doFinal((id + "." + moment + "." + body).getBytes(StandardCharsets.UTF_8));
            var answer = http.send(
                    HttpRequest.newBuilder(address)
                            .timeout(PATIENCE)
                            .header("Content-Type", "application/json")
                            .header("webhook-id", id)
                            .header("webhook-timestamp", moment)
                            .header("webhook-signature", "v1," + Base64.getEncoder().encodeToString(proof))
                            .POST(BodyPublishers.ofString(body))
                            .build(),
                    BodyHandlers.ofString());
            if (answer.statusCode() != 200) {
                throw new IOException("the bridge answered " + answer.statusCode() + " " + answer.body());
            }
        } catch (GeneralSecurityException e) {
            throw new IllegalStateException(e);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new IOException("the engine ends", e);
        }
    }
}
