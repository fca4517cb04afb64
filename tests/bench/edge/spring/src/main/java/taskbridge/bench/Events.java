package taskbridge.bench;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.URI;
import java.nio.ByteBuffer;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Instant;
import java.time.format.DateTimeFormatter;
import java.time.format.DateTimeFormatterBuilder;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Queue;
import java.util.TreeMap;
import java.util.UUID;
import java.util.concurrent.ConcurrentLinkedQueue;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.EncoderFactory;
import org.apache.avro.specific.SpecificDatumWriter;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import taskbridge.v1.Action;
import taskbridge.v1.Person;
import taskbridge.v1.TaskEvent;
import tools.jackson.core.JacksonException;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/** From the parameters of a callback to the record that reports it. */
final class Events {
    static final class Malformed extends Exception {
        Malformed() {
            super("malformed", null, false, false);
        }
    }

    static final class Unverified extends Exception {
        Unverified() {
            super("unverified", null, false, false);
        }
    }

    private static final Map<String, Action> ACTIONS = Map.of("create", Action.CREATED, "complete", Action.COMPLETED);
    private static final DateTimeFormatter RFC3339 = new DateTimeFormatterBuilder().appendInstant(3).toFormatter();
    private static final byte[] NAMESPACE =
            uuid5(HexFormat.of().parseHex("6ba7b8119dad11d180b400c04fd430c8"), "urn:taskbridge:v1");
    private static final int MAX_ID_CHARACTERS = 128;
    private static final int MS_DIGITS = 13;

    private final JsonMapper json = JsonMapper.builder().build();
    private final SpecificDatumWriter<TaskEvent> writer = new SpecificDatumWriter<>(TaskEvent.class);
    /** Not of the thread: a virtual one lives for one request. */
    private final Queue<Encoding> idle = new ConcurrentLinkedQueue<>();
    private final byte[] prefix;
    private final Map<String, String> tokens;

    private record Encoding(ByteArrayOutputStream out, BinaryEncoder encoder) {}

    Events(int schemaId, Map<String, String> tokens) {
        this.prefix = ByteBuffer.allocate(5).put((byte) 0).putInt(schemaId).array();
        this.tokens = tokens;
    }

    TaskEvent understand(String action, Map<String, String> parameters, long receivedAt) throws Malformed, Unverified {
        var known = ACTIONS.get(action);
        if (known == null) {
            throw new Malformed();
        }
        var task = known == Action.CREATED ? parse(parameters.get("task")) : null;
        var appType = task == null ? parameters.get("appType") : text(task, "appType");
        if (appType == null || appType.isBlank()) {
            throw new Malformed();
        }
        verify(parameters, tokens.get(appType));
        var occurredAt = moment(parameters.get("dateTime"));
        var event = new TaskEvent();
        event.setEventId(eventId(action, parameters));
        event.setSource("yida");
        event.setAction(known);
        event.setAppType(appType);
        event.setOccurredAt(occurredAt == null ? receivedAt : occurredAt);
        event.setReceivedAt(receivedAt);
        event.setRecipientIds(List.of());
        event.setFormData(Map.of());
        event.setRawParameters(parameters);
        if (task == null) {
            event.setCorpId(id(parameters.get("corpId")));
            event.setInstanceId(id(parameters.get("formInstId")));
            event.setTaskId(id(parameters.get("taskId")));
            event.setActorId(orNull(parameters.get("actualWorkId")));
        } else {
            describe(event, task);
        }
        return event;
    }

    private void describe(TaskEvent event, JsonNode task) throws Malformed {
        var corpId = text(task, "corpId");
        event.setCorpId(id(corpId == null ? text(task, "originatorCorpId") : corpId));
        event.setInstanceId(id(text(task, "formInstanceId")));
        event.setTaskId(text(task, "taskId"));
        event.setRecipientIds(ids(task.get("actionerId")));
        var originatorId = text(task, "originatorId");
        if (originatorId != null) {
            event.setOriginator(new Person(originatorId, text(task, "originatorDisplayName")));
        }
        event.setTitle(text(task, "title"));
        event.setUrl(webAddress(text(task, "url")));
        event.setProcessCode(text(task, "processCode"));
        event.setProcessName(text(task, "processName"));
        event.setFormUuid(text(task, "formUuid"));
        event.setSerialNo(text(task, "serialNo"));
        event.setInstanceStatus(text(task, "processInstanceStatus"));
        event.setApprovedResult(text(task, "processApprovedResult"));
        event.setCreatedAt(moment(text(task, "createTime")));
        event.setFinishedAt(moment(text(task, "finishTime")));
        var values = task.get("dataMap");
        if (values != null && values.isObject()) {
            var formData = new HashMap<String, String>(values.size() * 2);
            values.properties().forEach(each -> formData.put(each.getKey(), jsonText(each.getValue())));
            event.setFormData(formData);
        }
    }

    private JsonNode parse(String task) throws Malformed {
        try {
            var found = json.readTree(task == null ? "" : task);
            if (!found.isObject()) {
                throw new Malformed();
            }
            return found;
        } catch (JacksonException error) {
            throw new Malformed();
        }
    }

    private static void verify(Map<String, String> parameters, String token) throws Unverified {
        var sign = parameters.get("sign");
        if (token == null || sign == null) {
            throw new Unverified();
        }
        var sorted = new TreeMap<String, String>(String.CASE_INSENSITIVE_ORDER);
        sorted.putAll(parameters);
        sorted.remove("sign");
        var digest = digest("MD5");
        sorted.values().forEach(value -> digest.update(value.getBytes(UTF_8)));
        digest.update(token.getBytes(UTF_8));
        var hex = HexFormat.of().formatHex(digest.digest());
        if (!MessageDigest.isEqual(hex.getBytes(UTF_8), sign.toLowerCase(Locale.ROOT).getBytes(UTF_8))) {
            throw new Unverified();
        }
    }

    private static String eventId(String action, Map<String, String> parameters) {
        var name = new StringBuilder(2048);
        part(name, "yida");
        part(name, action);
        var sorted = new ArrayList<>(parameters.keySet());
        sorted.sort(null);
        for (var key : sorted) {
            if (!key.equals("sign")) {
                part(name, key);
                part(name, parameters.get(key));
            }
        }
        var id = ByteBuffer.wrap(uuid5(NAMESPACE, name.toString()));
        return new UUID(id.getLong(), id.getLong()).toString();
    }

    private static void part(StringBuilder name, String text) {
        name.append(text.codePointCount(0, text.length())).append(':').append(text);
    }

    private static byte[] uuid5(byte[] space, String name) {
        var digest = digest("SHA-1");
        digest.update(space);
        var id = java.util.Arrays.copyOf(digest.digest(name.getBytes(UTF_8)), 16);
        id[6] = (byte) (id[6] & 0x0f | 0x50);
        id[8] = (byte) (id[8] & 0x3f | 0x80);
        return id;
    }

    byte[] key(TaskEvent event) {
        return event.getInstanceId().getBytes(UTF_8);
    }

    byte[] encode(TaskEvent event) throws IOException {
        var found = idle.poll();
        if (found == null) {
            var out = new ByteArrayOutputStream(4096);
            found = new Encoding(out, EncoderFactory.get().binaryEncoder(out, null));
        }
        found.out.reset();
        found.out.writeBytes(prefix);
        writer.write(event, found.encoder);
        found.encoder.flush();
        var value = found.out.toByteArray();
        idle.add(found);
        return value;
    }

    static List<Header> headers(TaskEvent event) {
        return List.of(
                header("ce_specversion", "1.0"),
                header("ce_id", event.getEventId()),
                header("ce_type", "taskbridge.task." + event.getAction().name().toLowerCase(Locale.ROOT) + ".v1"),
                header("ce_source", "/" + event.getSource() + "/" + event.getCorpId() + "/" + event.getAppType()),
                header("ce_subject", event.getInstanceId()),
                header("ce_time", RFC3339.format(Instant.ofEpochMilli(event.getOccurredAt()))),
                header("content-type", "application/avro"));
    }

    private static Header header(String name, String value) {
        return new RecordHeader(name, value.getBytes(UTF_8));
    }

    private static List<String> ids(JsonNode node) {
        if (node == null || node.isNull()) {
            return List.of();
        }
        if (!node.isArray()) {
            return List.of(jsonText(node).split(","));
        }
        var found = new ArrayList<String>(node.size());
        node.forEach(each -> found.add(jsonText(each)));
        return found;
    }

    private static String text(JsonNode task, String name) {
        var value = task.get(name);
        return value == null ? null : orNull(jsonText(value));
    }

    /** A string's text, and any other value's JSON; null for null. */
    private static String jsonText(JsonNode value) {
        return value.isNull() ? null : value.isString() ? value.stringValue() : value.toString();
    }

    private static String orNull(String value) {
        return value == null || value.isBlank() ? null : value;
    }

    private static String id(String value) throws Malformed {
        if (value == null || value.isBlank() || value.codePointCount(0, value.length()) > MAX_ID_CHARACTERS
                || value.chars().anyMatch(Character::isISOControl)) {
            throw new Malformed();
        }
        return value;
    }

    private static Long moment(String value) {
        if (value == null || value.length() != MS_DIGITS) {
            return null;
        }
        try {
            return Long.parseLong(value);
        } catch (NumberFormatException error) {
            return null;
        }
    }

    private static String webAddress(String value) {
        if (value == null) {
            return null;
        }
        try {
            var address = URI.create(value);
            var scheme = address.getScheme();
            return address.getHost() != null && ("https".equals(scheme) || "http".equals(scheme)) ? value : null;
        } catch (IllegalArgumentException error) {
            return null;
        }
    }

    private static MessageDigest digest(String algorithm) {
        try {
            return MessageDigest.getInstance(algorithm);
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException(error);
        }
    }
}
