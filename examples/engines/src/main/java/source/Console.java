package source;

import com.google.gson.Gson;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Collection;
import java.util.Map;
import source.camunda.Camunda;
import source.flowable.Flowable;

/**
 * An engine in memory that reports to the bridge, driven by the console. Its arguments:
 * flowable|camunda ADDRESS SECRET.
 *
 * <p>start USER · claim|complete|assign|candidate|delegate|resolve INSTANCE TASK USER · withdraw|cancel INSTANCE USER ·
 * lists USER
 */
public final class Console {
    /** The commands of both engines. A task is the open one of that name in the instance. */
    public interface Engine extends AutoCloseable {
        void isNow(String user);

        String start();

        String taskId(String instance, String task);

        void claim(String taskId, String user);

        void complete(String taskId, String user);

        void assign(String taskId, String user);

        void candidate(String taskId, String user);

        void delegate(String taskId, String user);

        void resolve(String taskId);

        void withdraw(String instance);

        void cancel(String instance);

        /**
         * A person's lists in the engine: the ids of open tasks, of those that they are involved in (who was ever
         * named, assigned to others since or not), that they completed, and of the instances that they started.
         */
        Map<String, Collection<String>> lists(String user);

        @Override
        void close();
    }

    public static void main(String[] args) throws Exception {
        var bridge = new Bridge(args[1], args[2]);
        try (var engine = "camunda".equals(args[0]) ? new Camunda(bridge) : new Flowable(bridge)) {
            var typed = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
            for (var line = typed.readLine(); line != null; line = typed.readLine()) {
                System.out.println(new Gson().toJson(run(engine, line.split(" "))));
            }
        }
    }

    private static Object run(Engine engine, String[] words) {
        var user = words[words.length - 1];
        var task = words.length == 4 ? engine.taskId(words[1], words[2]) : null;
        engine.isNow(user);
        switch (words[0]) {
            case "start" -> {
                return engine.start();
            }
            case "claim" -> engine.claim(task, user);
            case "complete" -> engine.complete(task, user);
            case "assign" -> engine.assign(task, user);
            case "candidate" -> engine.candidate(task, user);
            case "delegate" -> engine.delegate(task, user);
            case "resolve" -> engine.resolve(task);
            case "withdraw" -> engine.withdraw(words[1]);
            case "cancel" -> engine.cancel(words[1]);
            case "lists" -> {
                return engine.lists(user);
            }
            default -> throw new IllegalArgumentException(words[0]);
        }
        return "done";
    }
}
