package source;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import org.flowable.common.engine.impl.identity.Authentication;
import org.flowable.engine.HistoryService;
import org.flowable.engine.RuntimeService;
import org.flowable.engine.TaskService;
import org.flowable.engine.impl.cfg.StandaloneInMemProcessEngineConfiguration;
import org.flowable.task.api.TaskInfo;

/**
 * An engine in memory that reports to the bridge, to be told on the console what people do. Its arguments: ADDRESS SECRET.
 *
 * <p>start USER · claim|complete|assign|candidate INSTANCE TASK USER · withdraw|cancel INSTANCE USER · lists USER
 */
public final class Console {
    private final RuntimeService runtime;
    private final TaskService tasks;
    private final HistoryService history;

    public static void main(String[] args) throws Exception {
        var configuration = new StandaloneInMemProcessEngineConfiguration();
        configuration.setJdbcUrl("jdbc:h2:mem:leave;DB_CLOSE_DELAY=-1").setDatabaseSchemaUpdate("true");
        // The three lines that an engine of your own needs.
        configuration.setEventListeners(List.of(new TaskEvents()));
        configuration.addCustomJobHandler(new PostJob(args[0], args[1]));
        configuration.setAsyncExecutorActivate(true);

        var engine = configuration.buildProcessEngine();
        try {
            engine.getRepositoryService().createDeployment().addClasspathResource("leave.bpmn20.xml").deploy();
            var console = new Console(engine.getRuntimeService(), engine.getTaskService(), engine.getHistoryService());
            var typed = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
            for (var line = typed.readLine(); line != null; line = typed.readLine()) {
                System.out.println(configuration.getObjectMapper().writeValueAsString(console.run(line.split(" "))));
            }
        } finally {
            engine.close();
        }
    }

    private Console(RuntimeService runtime, TaskService tasks, HistoryService history) {
        this.runtime = runtime;
        this.tasks = tasks;
        this.history = history;
    }

    private Object run(String[] words) {
        var user = words[words.length - 1];
        Authentication.setAuthenticatedUserId(user);
        switch (words[0]) {
            case "start" -> {
                return runtime.startProcessInstanceByKey("leave", "2026-0001").getId();
            }
            case "claim" -> tasks.claim(taskId(words), user);
            case "complete" -> tasks.complete(taskId(words), user);
            case "assign" -> tasks.setAssignee(taskId(words), user);
            case "candidate" -> tasks.addCandidateUser(taskId(words), user);
            case "withdraw" -> runtime.messageEventReceived("withdrawn", runtime.createExecutionQuery()
                    .processInstanceId(words[1]).messageEventSubscriptionName("withdrawn").singleResult().getId());
            case "cancel" -> runtime.deleteProcessInstance(words[1], "no longer needed");
            case "lists" -> {
                return lists(user);
            }
            default -> throw new IllegalArgumentException(words[0]);
        }
        return "done";
    }

    private String taskId(String[] words) {
        return tasks.createTaskQuery().processInstanceId(words[1]).taskDefinitionKey(words[2]).singleResult().getId();
    }

    /** What the engine says of a person. Involved is who ever was named, assigned to others since or not. */
    private Map<String, List<String>> lists(String user) {
        var open = tasks.createTaskQuery().taskCandidateOrAssigned(user).list();
        var involved = history.createHistoricTaskInstanceQuery().unfinished().taskInvolvedUser(user).list();
        var completed = history.createHistoricTaskInstanceQuery().finished().taskWithoutDeleteReason().list().stream()
                .filter(task -> user.equals(task.getCompletedBy()));
        var started = history.createHistoricProcessInstanceQuery().startedBy(user).list();
        return Map.of(
                "open", open.stream().map(TaskInfo::getId).sorted().toList(),
                "involved", involved.stream().map(TaskInfo::getId).sorted().toList(),
                "completed", completed.map(TaskInfo::getId).sorted().toList(),
                "started", started.stream().map(each -> each.getId()).sorted().toList());
    }
}
