import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Random;
import java.util.UUID;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.utils.Utils;

/** Prints where Kafka's own Java client puts records, by their keys: see partition-vectors.md. */
public final class PartitionVectors {
    private static final int[] PARTITIONS = {1, 2, 3, 8, 12, 50, 1000};

    public static void main(String[] arguments) {
        List<byte[]> keys = new ArrayList<>();
        for (String text : List.of("", "1", "21", "foobar", "a-little-bit-long-string", "FINST-A1", "I-1",
                "f30233fb-72e1-4af4-8cb8-c7e0ea9ee530", "APP_RY60OCRF33Z7534", "ding5d17e3add038d445/user1",
                "ding5d17e3add038d445/0150151124841273", "申请单-一", "ding5d17e3add038d445/张三", "🙂", "a b/c%2Fd", "x".repeat(128))) {
            keys.add(text.getBytes(StandardCharsets.UTF_8));
        }
        Random chance = new Random(20261125);
        for (int number = 0; number < 40; number++) {
            keys.add(new UUID(chance.nextLong(), chance.nextLong()).toString().getBytes(StandardCharsets.UTF_8));
        }
        // Any bytes, of every length modulo four: the hash reads four at a time, and bytes have signs in Java.
        for (int length = 1; length <= 40; length++) {
            byte[] key = new byte[length];
            chance.nextBytes(key);
            keys.add(key);
        }
        List<String> lines = new ArrayList<>();
        for (byte[] key : keys) {
            List<String> partitions = new ArrayList<>();
            for (int count : PARTITIONS) {
                partitions.add("\"" + count + "\": " + BuiltInPartitioner.partitionForKey(key, count));
            }
            lines.add(" {\"key\": \"" + HexFormat.of().formatHex(key) + "\", \"murmur2\": " + Utils.murmur2(key)
                    + ", \"partitions\": {" + String.join(", ", partitions) + "}}");
        }
        System.out.println("[\n" + String.join(",\n", lines) + "\n]");
    }
}
