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
import org.flowable.common.engine.api.FlowableException;
import org.flowable.common.engine.impl.interceptor.CommandContext;
import org.flowable.job.service.JobHandler;
import org.flowable.job.service.impl.persistence.entity.JobEntity;
import org.flowable.variable.api.delegate.VariableScope;

/** Posts one event to the bridge, signed as Standard Webhooks has it. What fails is tried again by the engine. */
public final class PostJob implements JobHandler {
    static final String TYPE = "taskbridge";
    private static final Duration PATIENCE = Duration.ofSeconds(30);

    private final HttpClient http = HttpClient.newBuilder().connectTimeout(PATIENCE).build();
    private final URI address;
    private final SecretKeySpec key;

    PostJob(String address, String secret) {
        this.address = URI.create(address);
        this.key = new SecretKeySpec(Base64.getDecoder().decode(secret.substring("whsec_".length())), "HmacSHA256");
    }

    @Override
    public String getType() {
        return TYPE;
    }

    @Override
    public void execute(JobEntity job, String configuration, VariableScope scope, CommandContext context) {
        var id = job.getCorrelationId(); // each try has the same
        var body = job.getCustomValues();
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
            if (answer.statusCode() != 200) { // 200 says that the event is durable
                throw new FlowableException("the bridge answered " + answer.statusCode() + " " + answer.body());
            }
        } catch (IOException | GeneralSecurityException e) {
            throw new FlowableException("the bridge has not taken the event", e);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new FlowableException("the engine ends", e);
        }
    }
}
