package source.flowable;

import java.util.Collection;
import java.util.List;
import java.util.Map;
import org.flowable.common.engine.impl.identity.Authentication;
import org.flowable.engine.HistoryService;
import org.flowable.engine.ProcessEngine;
import org.flowable.engine.RuntimeService;
import org.flowable.engine.TaskService;
import org.flowable.engine.impl.cfg.StandaloneInMemProcessEngineConfiguration;
import org.flowable.task.api.TaskInfo;
import source.Bridge;
import source.Console;

/** Flowable on H2, in memory. */
public final class Flowable implements Console.Engine {
    private final ProcessEngine engine;
    private final RuntimeService runtime;
    private final TaskService tasks;
    private final HistoryService history;

    public Flowable(Bridge bridge) {
        var configuration = new StandaloneInMemProcessEngineConfiguration();
        configuration.setJdbcUrl("jdbc:h2:mem:flowable;DB_CLOSE_DELAY=-1").setDatabaseSchemaUpdate("true");
        // The three lines that an engine of your own needs.
        configuration.setEventListeners(List.of(new TaskEvents()));
        configuration.addCustomJobHandler(new PostJob(bridge));
        configuration.setAsyncExecutorActivate(true);
        // Only for this trial: it is short.
        configuration.setAsyncFailedJobWaitTime(1);
        configuration.setAsyncExecutorDefaultTimerJobAcquireWaitTime(500);

        engine = configuration.buildProcessEngine();
        engine.getRepositoryService().createDeployment().addClasspathResource("leave.bpmn20.xml").deploy();
        runtime = engine.getRuntimeService();
        tasks = engine.getTaskService();
        history = engine.getHistoryService();
    }

    @Override
    public void isNow(String user) {
        Authentication.setAuthenticatedUserId(user);
    }

    @Override
    public String start() {
        return runtime.startProcessInstanceByKey("leave", "2026-0001").getId();
    }

    @Override
    public String taskId(String instance, String task) {
        return tasks.createTaskQuery().processInstanceId(instance).taskDefinitionKey(task).singleResult().getId();
    }

    @Override
    public void claim(String taskId, String user) {
        tasks.claim(taskId, user);
    }

    @Override
    public void complete(String taskId, String user) {
        tasks.complete(taskId, user);
    }

    @Override
    public void assign(String taskId, String user) {
        tasks.setAssignee(taskId, user);
    }

    @Override
    public void candidate(String taskId, String user) {
        tasks.addCandidateUser(taskId, user);
    }

    @Override
    public void delegate(String taskId, String user) {
        tasks.delegateTask(taskId, user);
    }

    @Override
    public void resolve(String taskId) {
        tasks.resolveTask(taskId);
    }

    @Override
    public void withdraw(String instance) {
        runtime.messageEventReceived("withdrawn", runtime.createExecutionQuery()
                .processInstanceId(instance).messageEventSubscriptionName("withdrawn").singleResult().getId());
    }

    @Override
    public void cancel(String instance) {
        runtime.deleteProcessInstance(instance, "no longer needed");
    }

    @Override
    public Map<String, Collection<String>> lists(String user) {
        var open = tasks.createTaskQuery().taskCandidateOrAssigned(user).list();
        var involved = history.createHistoricTaskInstanceQuery().unfinished().taskInvolvedUser(user).list();
        var completed = history.createHistoricTaskInstanceQuery().finished().taskWithoutDeleteReason().list().stream()
                .filter(task -> user.equals(task.getCompletedBy()));
        var started = history.createHistoricProcessInstanceQuery().startedBy(user).list();
        return Map.of(
                "open", open.stream().map(TaskInfo::getId).toList(),
                "involved", involved.stream().map(TaskInfo::getId).toList(),
                "completed", completed.map(TaskInfo::getId).toList(),
                "started", started.stream().map(each -> each.getId()).toList());
    }

    @Override
    public void close() {
        engine.close();
    }
}
