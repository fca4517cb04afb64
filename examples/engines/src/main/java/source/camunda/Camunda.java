package source.camunda;

import java.time.Duration;
import java.util.Collection;
import java.util.Map;
import org.camunda.bpm.engine.EntityTypes;
import org.camunda.bpm.engine.HistoryService;
import org.camunda.bpm.engine.IdentityService;
import org.camunda.bpm.engine.ProcessEngine;
import org.camunda.bpm.engine.ProcessEngineConfiguration;
import org.camunda.bpm.engine.RuntimeService;
import org.camunda.bpm.engine.TaskService;
import org.camunda.bpm.engine.history.UserOperationLogEntry;
import org.camunda.bpm.engine.impl.cfg.StandaloneInMemProcessEngineConfiguration;
import org.camunda.bpm.engine.impl.jobexecutor.DefaultJobExecutor;
import source.Bridge;
import source.Console;

/** Camunda 7 on H2, in memory. */
public final class Camunda implements Console.Engine {
    private final ProcessEngine engine;
    private final IdentityService people;
    private final RuntimeService runtime;
    private final TaskService tasks;
    private final HistoryService history;

    public Camunda(Bridge bridge) {
        var configuration = new StandaloneInMemProcessEngineConfiguration();
        configuration.setJdbcUrl("jdbc:h2:mem:camunda;DB_CLOSE_DELAY=-1").setDatabaseSchemaUpdate("true");
        // The two lines that an engine of your own needs.
        configuration.getProcessEnginePlugins().add(new Taskbridge(bridge, Duration.ofSeconds(1)));
        configuration.setJobExecutorActivate(true);
        // Only for this trial: the lists below need the full history, and a trial is short.
        configuration.setHistory(ProcessEngineConfiguration.HISTORY_FULL);
        configuration.setJobExecutor(new DefaultJobExecutor());
        configuration.getJobExecutor().setWaitTimeInMillis(500);
        configuration.getJobExecutor().setMaxWait(500);

        engine = configuration.buildProcessEngine();
        engine.getRepositoryService().createDeployment().addClasspathResource("leave.bpmn20.xml").deploy();
        people = engine.getIdentityService();
        runtime = engine.getRuntimeService();
        tasks = engine.getTaskService();
        history = engine.getHistoryService();
    }

    @Override
    public void isNow(String user) {
        people.setAuthenticatedUserId(user);
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
        tasks.complete(taskId);
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
        runtime.createMessageCorrelation("withdrawn").processInstanceId(instance).correlate();
    }

    @Override
    public void cancel(String instance) {
        runtime.deleteProcessInstance(instance, "no longer needed");
    }

    @Override
    public Map<String, Collection<String>> lists(String user) {
        var open = tasks.createTaskQuery().or().taskCandidateUser(user).taskAssignee(user).endOr().list();
        var involved = history.createHistoricTaskInstanceQuery().unfinished().taskInvolvedUser(user).list();
        var completed = history.createUserOperationLogQuery()
                .entityType(EntityTypes.TASK)
                .operationType(UserOperationLogEntry.OPERATION_TYPE_COMPLETE)
                .userId(user)
                .list();
        var started = history.createHistoricProcessInstanceQuery().startedBy(user).list();
        return Map.of(
                "open", open.stream().map(each -> each.getId()).toList(),
                "involved", involved.stream().map(each -> each.getId()).toList(),
                "completed", completed.stream().map(each -> each.getTaskId()).toList(),
                "started", started.stream().map(each -> each.getId()).toList());
    }

    @Override
    public void close() {
        engine.close();
    }
}
