package questions;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.CoreOptions;
import org.apache.flink.configuration.DeploymentOptions;
import org.apache.flink.configuration.RestOptions;
import org.apache.flink.runtime.minicluster.MiniCluster;
import org.apache.flink.runtime.minicluster.MiniClusterConfiguration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.types.Row;
import org.apache.flink.types.RowKind;
import org.apache.flink.util.CloseableIterator;

/** Runs SQL files on a cluster in this process, and prints the result of each SELECT when its tables have ended. */
public final class Ask {
    private static final Pattern SETTING = Pattern.compile("SET '(.*)' = '(.*)'");

    public static void main(String[] files) throws Exception {
        Configuration configuration = new Configuration();
        configuration.set(CoreOptions.DEFAULT_PARALLELISM, 1);
        configuration.set(RestOptions.ADDRESS, "127.0.0.1");
        configuration.set(RestOptions.BIND_ADDRESS, "127.0.0.1");
        configuration.set(RestOptions.BIND_PORT, "0");
        // One for all queries: Flink's local cluster ends with each job, sometimes before its last rows are fetched.
        try (MiniCluster cluster = new MiniCluster(
                new MiniClusterConfiguration.Builder().setConfiguration(configuration).build())) {
            cluster.start();
            configuration.set(DeploymentOptions.TARGET, "remote");
            configuration.set(RestOptions.PORT, cluster.getRestAddress().get().getPort());
            TableEnvironment flink = TableEnvironment.create(
                    EnvironmentSettings.newInstance().inStreamingMode().withConfiguration(configuration).build());
            for (String file : files) {
                for (String statement : statements(Path.of(file))) {
                    run(flink, statement);
                }
            }
        }
    }

    private static String[] statements(Path file) throws IOException {
        return Files.readString(file).replaceAll("(?m)^--.*\n", "").strip().split(";\\s*");
    }

    private static void run(TableEnvironment flink, String statement) throws Exception {
        Matcher setting = SETTING.matcher(statement);
        if (setting.matches()) {
            flink.getConfig().set(setting.group(1), setting.group(2));
        } else if (statement.startsWith("SELECT")) {
            print(flink, statement);
        } else {
            flink.executeSql(statement);
        }
    }

    /** A result is a stream of changes: retracted rows are not printed. */
    private static void print(TableEnvironment flink, String question) throws Exception {
        Map<String, Integer> rows = new LinkedHashMap<>();
        try (CloseableIterator<Row> changes = flink.executeSql(question).collect()) {
            while (changes.hasNext()) {
                Row change = changes.next();
                boolean added = change.getKind() == RowKind.INSERT || change.getKind() == RowKind.UPDATE_AFTER;
                rows.merge(text(change), added ? 1 : -1, Integer::sum);
            }
        }
        System.out.println(question);
        rows.forEach((row, times) -> System.out.print((row + "\n").repeat(times)));
    }

    private static String text(Row row) {
        return IntStream.range(0, row.getArity())
                .mapToObj(at -> String.valueOf(row.getField(at)))
                .collect(Collectors.joining("\t"));
    }
}
