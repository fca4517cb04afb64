package taskbridge.bench;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Arrays;
import java.util.HexFormat;

/** Deterministic ids: UUIDv5 in the contract's namespace. */
final class Ids {
    private static final HexFormat HEX = HexFormat.of();

    private final MessageDigest sha1;
    private final byte[] namespace;

    Ids() {
        try {
            sha1 = MessageDigest.getInstance("SHA-1");
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException(error);
        }
        namespace = uuid5(HEX.parseHex("6ba7b8119dad11d180b400c04fd430c8"), "urn:taskbridge:v1");
    }

    String notificationId(String eventId, String recipientId, String view, String taskId, String change) {
        var name = eventId + '\n' + recipientId + '\n' + view + '\n' + (taskId == null ? "" : taskId) + '\n' + change;
        var hex = HEX.formatHex(uuid5(namespace, name));
        return hex.substring(0, 8) + '-' + hex.substring(8, 12) + '-' + hex.substring(12, 16) + '-'
                + hex.substring(16, 20) + '-' + hex.substring(20);
    }

    private byte[] uuid5(byte[] space, String name) {
        sha1.update(space);
        var id = Arrays.copyOf(sha1.digest(name.getBytes(UTF_8)), 16);
        id[6] = (byte) (id[6] & 0x0f | 0x50);
        id[8] = (byte) (id[8] & 0x3f | 0x80);
        return id;
    }
}
