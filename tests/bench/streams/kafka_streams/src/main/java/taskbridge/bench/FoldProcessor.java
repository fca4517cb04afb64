package taskbridge.bench;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.time.Instant;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.Locale;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import taskbridge.v1.Lifecycle;
import taskbridge.v1.TaskNotification;

/** One event: decode, read the instance, fold, write it, publish its state and the notifications. */
final class FoldProcessor implements Processor<byte[], byte[], byte[], byte[]> {
    static final String STORE = "instances";
    static final String STATES = "states";
    static final String NOTIFICATIONS = "notifications";

    private static final Headers NONE = new RecordHeaders();
    private static final DateTimeFormatter RFC3339 =
            DateTimeFormatter.ofPattern("yyyy-MM-dd'T'HH:mm:ss.SSS'Z'").withZone(ZoneOffset.UTC);
    private static final byte[] VERSION = "1.0".getBytes(UTF_8);
    private static final byte[] AVRO = "application/avro".getBytes(UTF_8);

    private final Codec codec;
    private final Views views = new Views();
    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<byte[], byte[]> store;

    FoldProcessor(Codec codec) {
        this.codec = codec;
    }

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
        this.context = context;
        store = context.getStateStore(STORE);
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
        var event = codec.event(record.value());
        var stored = store.get(record.key());
        var instance = stored == null ? Fold.unknown(event) : codec.unpack(stored);
        var before = Views.of(instance);
        var changed = Fold.apply(instance, event);
        var found = views.difference(before, instance, changed, event);
        if (changed) {
            var state = codec.state(instance.state());
            store.put(record.key(), codec.pack(state, instance.marks()));
            var deleted = instance.state().getLifecycle() == Lifecycle.DELETED;
            context.forward(new Record<>(record.key(), deleted ? null : state, record.timestamp(), NONE), STATES);
        }
        for (var each : found) {
            var key = (each.getCorpId() + "/" + each.getRecipientId()).getBytes(UTF_8);
            var value = codec.notification(each);
            context.forward(new Record<>(key, value, record.timestamp(), headers(each)), NOTIFICATIONS);
        }
    }

    private static Headers headers(TaskNotification notification) {
        var source = "/yida/" + notification.getCorpId() + "/" + notification.getAppType();
        return new RecordHeaders()
                .add("ce_specversion", VERSION)
                .add("ce_id", notification.getNotificationId().getBytes(UTF_8))
                .add("ce_type", type(notification).getBytes(UTF_8))
                .add("ce_source", source.getBytes(UTF_8))
                .add("ce_subject", notification.getInstanceId().getBytes(UTF_8))
                .add("ce_time", RFC3339.format(Instant.ofEpochMilli(notification.getOccurredAt())).getBytes(UTF_8))
                .add("content-type", AVRO);
    }

    private static String type(TaskNotification notification) {
        return "taskbridge.notification." + notification.getChange().name().toLowerCase(Locale.ROOT) + ".v1";
    }
}
