package taskbridge.bench;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.time.Instant;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.Locale;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.streams.kstream.internals.Change;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.internals.InternalProcessorContext;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.internals.WrappedStateStore;
import taskbridge.v1.Lifecycle;
import taskbridge.v1.TaskNotification;

/** One event: decode, read the instance, fold, write it, tell its state and the notifications. */
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
    private final boolean cached;
    private final Views views = new Views();
    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<byte[], byte[]> store;

    FoldProcessor(Codec codec, boolean cached) {
        this.codec = codec;
        this.cached = cached;
    }

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
        this.context = context;
        store = context.getStateStore(STORE);
        if (cached) {
            tellStatesWhenTheCacheIsFlushed();
        }
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
            if (!cached) {
                var deleted = instance.state().getLifecycle() == Lifecycle.DELETED;
                context.forward(new Record<>(record.key(), deleted ? null : state, record.timestamp(), NONE), STATES);
            }
        }
        for (var each : found) {
            var key = (each.getCorpId() + "/" + each.getRecipientId()).getBytes(UTF_8);
            var value = codec.notification(each);
            context.forward(new Record<>(key, value, record.timestamp(), headers(each)), NOTIFICATIONS);
        }
    }

    /**
     * With a cache, a state is told once for all changes between two commits, as the DSL's aggregations do it. They do
     * it by this listener of the cache (TimestampedCacheFlushListener); the Processor API has no public word for it.
     */
    @SuppressWarnings("unchecked")
    private void tellStatesWhenTheCacheIsFlushed() {
        var internal = (InternalProcessorContext<byte[], byte[]>) (Object) context;
        var node = internal.currentNode();
        var wrapped = (WrappedStateStore<?, byte[], byte[]>) store;
        wrapped.setFlushListener(flushed -> {
            var previous = internal.currentNode();
            internal.setCurrentNode(node);
            try {
                Change<byte[]> change = flushed.value();
                var value = published(change.newValue);
                context.forward(new Record<>(flushed.key(), value, flushed.timestamp(), NONE), STATES);
            } finally {
                internal.setCurrentNode(previous);
            }
        }, false);
    }

    private byte[] published(byte[] stored) {
        return codec.unpack(stored).state().getLifecycle() == Lifecycle.DELETED ? null : Codec.stateOf(stored);
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
