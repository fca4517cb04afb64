package taskbridge.bench;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import org.apache.avro.Schema;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.EncoderFactory;
import org.apache.avro.specific.SpecificDatumReader;
import org.apache.avro.specific.SpecificDatumWriter;
import org.apache.avro.specific.SpecificRecord;
import taskbridge.bench.stored.Marks;
import taskbridge.v1.TaskEvent;
import taskbridge.v1.TaskNotification;
import taskbridge.v1.TaskState;

/**
 * Avro in the Confluent wire format, and the stored form of an instance: four bytes of length, the state as it was
 * produced to its topic, then the marks. The state is encoded once for both. Of one thread.
 */
final class Codec {
    private static final int FRAME = 5;

    private final SpecificDatumReader<TaskEvent> events;
    private final SpecificDatumReader<TaskState> states = new SpecificDatumReader<>(TaskState.class);
    private final SpecificDatumReader<Marks> marks = new SpecificDatumReader<>(Marks.class);
    private final SpecificDatumWriter<TaskState> stateWriter = new SpecificDatumWriter<>(TaskState.class);
    private final SpecificDatumWriter<Marks> marksWriter = new SpecificDatumWriter<>(Marks.class);
    private final SpecificDatumWriter<TaskNotification> notificationWriter =
            new SpecificDatumWriter<>(TaskNotification.class);
    private final ByteArrayOutputStream out = new ByteArrayOutputStream(4096);
    private final byte[] stateFrame;
    private final byte[] notificationFrame;
    private BinaryDecoder decoder;
    private BinaryEncoder encoder;

    Codec(int stateSchemaId, int notificationSchemaId) {
        stateFrame = frame(stateSchemaId);
        notificationFrame = frame(notificationSchemaId);
        var schema = TaskEvent.getClassSchema();
        events = new SpecificDatumReader<>(schema, withoutMaps(schema));
    }

    TaskEvent event(byte[] value) {
        if (value[0] != 0) {
            throw new IllegalArgumentException("not in the wire format");
        }
        return read(events, value, FRAME, value.length - FRAME);
    }

    byte[] state(TaskState state) {
        return write(stateWriter, state, stateFrame);
    }

    byte[] notification(TaskNotification notification) {
        return write(notificationWriter, notification, notificationFrame);
    }

    byte[] pack(byte[] state, Marks found) {
        return write(marksWriter, found, ByteBuffer.allocate(4 + state.length).putInt(state.length).put(state).array());
    }

    Instance unpack(byte[] stored) {
        var length = ByteBuffer.wrap(stored).getInt();
        var state = read(states, stored, 4 + FRAME, length - FRAME);
        return new Instance(state, read(marks, stored, 4 + length, stored.length - 4 - length));
    }

    private <T extends SpecificRecord> T read(SpecificDatumReader<T> reader, byte[] bytes, int from, int length) {
        try {
            decoder = DecoderFactory.get().binaryDecoder(bytes, from, length, decoder);
            return reader.read(null, decoder);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private <T extends SpecificRecord> byte[] write(SpecificDatumWriter<T> writer, T record, byte[] before) {
        try {
            out.reset();
            out.writeBytes(before);
            encoder = EncoderFactory.get().binaryEncoder(out, encoder);
            writer.write(record, encoder);
            encoder.flush();
            return out.toByteArray();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    /**
     * What the fold needs of an event: all but the form and the raw parameters, which are its last two fields. Avro
     * skips them in the bytes, which takes a third off the decoding.
     */
    private static Schema withoutMaps(Schema schema) {
        var fields = schema.getFields();
        var kept = fields.subList(0, fields.size() - 2).stream()
                .map(field -> new Schema.Field(field, field.schema()))
                .toList();
        return Schema.createRecord(schema.getName(), null, schema.getNamespace(), false, kept);
    }

    private static byte[] frame(int schemaId) {
        return ByteBuffer.allocate(FRAME).put((byte) 0).putInt(schemaId).array();
    }
}
