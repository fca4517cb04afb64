package subscriber;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.io.DatumReader;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.specific.SpecificDatumReader;
import org.apache.avro.util.ClassSecurityValidator;
import taskbridge.v1.TaskNotification;

/** Decodes the Confluent wire format: a zero byte, four bytes of schema id, Avro. Any registry with that API works. */
final class Decoder {
    private static final int HEAD = 5;

    static { // Avro makes records only of classes that it is told to trust
        ClassSecurityValidator.setGlobal(ClassSecurityValidator.composite(
                ClassSecurityValidator.DEFAULT,
                type -> type.getPackage().equals(TaskNotification.class.getPackage())));
    }

    private final HttpClient http = HttpClient.newHttpClient();
    private final Map<Integer, DatumReader<TaskNotification>> readers = new HashMap<>();
    private final String registryUrl;

    Decoder(String registryUrl) {
        this.registryUrl = registryUrl;
    }

    /** Throws IOException when the registry is away: the record may be fine, so try again. */
    TaskNotification decode(byte[] value) throws UndecodableException, IOException, InterruptedException {
        if (value == null || value.length < HEAD || value[0] != 0) {
            throw new UndecodableException("not in the Confluent wire format");
        }
        var reader = readerOf(ByteBuffer.wrap(value).getInt(1));
        try {
            return reader.read(null, DecoderFactory.get().binaryDecoder(value, HEAD, value.length - HEAD, null));
        } catch (IOException | RuntimeException e) {
            throw new UndecodableException(e);
        }
    }

    /** Written by the schema with that id, read as the one that this program was built with. */
    private DatumReader<TaskNotification> readerOf(int id)
            throws UndecodableException, IOException, InterruptedException {
        var reader = readers.get(id);
        if (reader == null) {
            reader = new SpecificDatumReader<>(fetch(id), TaskNotification.getClassSchema());
            readers.put(id, reader);
        }
        return reader;
    }

    private Schema fetch(int id) throws UndecodableException, IOException, InterruptedException {
        var request = HttpRequest.newBuilder(URI.create(registryUrl + "/schemas/ids/" + id))
                .timeout(Duration.ofSeconds(10))
                .build();
        var answer = http.send(request, BodyHandlers.ofString());
        if (answer.statusCode() == 404) {
            throw new UndecodableException("the registry has no schema " + id);
        }
        if (answer.statusCode() != 200) {
            throw new IOException("the registry answered " + answer.statusCode());
        }
        var schema = new ObjectMapper().readTree(answer.body()).get("schema").asText();
        return new Schema.Parser().parse(schema);
    }
}
