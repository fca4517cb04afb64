package source.flowable;

import java.util.Date;
import java.util.LinkedHashMap;
import java.util.Map;
import org.flowable.common.engine.api.delegate.event.AbstractFlowableEventListener;
import org.flowable.common.engine.api.delegate.event.FlowableEngineEvent;
import org.flowable.common.engine.api.delegate.event.FlowableEngineEventType;
import org.flowable.common.engine.api.delegate.event.FlowableEntityEvent;
import org.flowable.common.engine.api.delegate.event.FlowableEvent;
import org.flowable.common.engine.impl.identity.Authentication;
import org.flowable.engine.impl.cfg.ProcessEngineConfigurationImpl;
import org.flowable.engine.impl.persistence.entity.ExecutionEntity;
import org.flowable.engine.impl.util.CommandContextUtil;
import org.flowable.identitylink.api.IdentityLinkInfo;
import org.flowable.identitylink.api.IdentityLinkType;
import org.flowable.identitylink.service.impl.persistence.entity.IdentityLinkEntity;
import org.flowable.task.service.impl.persistence.entity.TaskEntity;

/**
 * Reports tasks and process instances to the bridge, each event as a job of the engine, created in
 * the transaction that it reports. {@link PostJob} posts it until the bridge has it.
 */
public final class TaskEvents extends AbstractFlowableEventListener {
    private static final String COMPLETED = "taskbridge.completed.";
    private static final int TRIES = 10_000; // ten seconds apart: the bridge may be away for a day

    @Override
    public void onEvent(FlowableEvent event) {
        var entity = event instanceof FlowableEntityEvent about ? about.getEntity() : null;
        switch ((FlowableEngineEventType) event.getType()) {
            case TASK_CREATED, TASK_ASSIGNED -> report(event, (TaskEntity) entity);
            case TASK_COMPLETED -> {
                var task = (TaskEntity) entity;
                CommandContextUtil.getCommandContext().addAttribute(COMPLETED + task.getId(), true);
                var told = told(task);
                told.put("completedBy", Authentication.getAuthenticatedUserId());
                report(event.getType().name(), told);
            }
            case ENTITY_DELETED -> { // the only word on a task that is cancelled, and the last one on any other
                if (entity instanceof TaskEntity task
                        && CommandContextUtil.getCommandContext().getAttribute(COMPLETED + task.getId()) == null) {
                    report(event, task);
                }
            }
            case ENTITY_CREATED -> {
                if (entity instanceof IdentityLinkEntity link
                        && IdentityLinkType.CANDIDATE.equals(link.getType())
                        && link.getTaskId() != null) {
                    reportCandidateOf(link.getTaskId());
                }
            }
            case PROCESS_CREATED, PROCESS_COMPLETED, PROCESS_COMPLETED_WITH_TERMINATE_END_EVENT,
                    PROCESS_COMPLETED_WITH_ERROR_END_EVENT, PROCESS_COMPLETED_WITH_ESCALATION_END_EVENT ->
                report(event, (ExecutionEntity) entity);
            case PROCESS_CANCELLED -> report(event, CommandContextUtil.getExecutionEntityManager()
                    .findById(((FlowableEngineEvent) event).getProcessInstanceId()));
            default -> { }
        }
    }

    /** A failing event fails the engine's transaction: nothing happens without a report. */
    @Override
    public boolean isFailOnException() {
        return true;
    }

    /** People who are named when the task is created are reported with it. */
    private static void reportCandidateOf(String taskId) {
        var task = engine().getTaskServiceConfiguration().getTaskService().getTask(taskId);
        if (!task.isInserted()) {
            report(FlowableEngineEventType.TASK_CREATED.name(), told(task));
        }
    }

    private static void report(FlowableEvent event, TaskEntity task) {
        report(event.getType().name(), told(task));
    }

    private static void report(FlowableEvent event, ExecutionEntity instance) {
        var told = new LinkedHashMap<String, Object>();
        told.put("id", instance.getId());
        told.put("processInstanceId", instance.getId());
        told.put("processDefinitionId", instance.getProcessDefinitionId());
        told.put("processDefinitionName", instance.getProcessDefinitionName());
        told.put("name", instance.getName());
        told.put("businessKey", instance.getBusinessKey());
        told.put("startUserId", instance.getStartUserId());
        told.put("startTime", moment(instance.getStartTime()));
        report(event.getType().name(), told);
    }

    private static Map<String, Object> told(TaskEntity task) {
        var told = new LinkedHashMap<String, Object>();
        told.put("id", task.getId());
        told.put("name", task.getName());
        told.put("taskDefinitionKey", task.getTaskDefinitionKey());
        told.put("processInstanceId", task.getProcessInstanceId());
        told.put("processDefinitionId", task.getProcessDefinitionId());
        told.put("createTime", moment(task.getCreateTime()));
        told.put("assignee", task.getAssignee());
        told.put("candidateUsers", task.getCandidates().stream()
                .map(IdentityLinkInfo::getUserId)
                .filter(user -> user != null)
                .toList());
        return told;
    }

    private static void report(String type, Map<String, Object> told) {
        if (told.get("processInstanceId") == null) {
            return; // a task of no process
        }
        told.put("timestamp", moment(engine().getClock().getCurrentTime()));
        var jobs = engine().getJobServiceConfiguration().getJobService();
        var job = jobs.createJob();
        job.setJobHandlerType(PostJob.TYPE);
        job.setCustomValues(engine().getObjectMapper().writeValueAsString(Map.of("type", type, "data", told)));
        jobs.createAsyncJob(job, false);
        job.setRetries(TRIES);
        jobs.scheduleAsyncJob(job);
    }

    private static String moment(Date at) {
        return at == null ? null : at.toInstant().toString();
    }

    private static ProcessEngineConfigurationImpl engine() {
        return CommandContextUtil.getProcessEngineConfiguration();
    }
}
