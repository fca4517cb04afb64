package source.camunda;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonObject;
import java.util.List;
import org.camunda.bpm.engine.impl.context.Context;
import org.camunda.bpm.engine.impl.history.event.HistoricProcessInstanceEventEntity;
import org.camunda.bpm.engine.impl.history.event.HistoricTaskInstanceEventEntity;
import org.camunda.bpm.engine.impl.history.event.HistoryEvent;
import org.camunda.bpm.engine.impl.history.event.HistoryEventTypes;
import org.camunda.bpm.engine.impl.history.handler.HistoryEventHandler;
import org.camunda.bpm.engine.impl.persistence.entity.TaskEntity;
import org.camunda.bpm.engine.impl.util.ClockUtil;
import org.camunda.bpm.engine.task.IdentityLink;

/**
 * Reports tasks and process instances to the bridge, each history event as a job of the engine, created in
 * the transaction that it reports. {@link PostJob} posts it until the bridge has it.
 */
final class TaskEvents implements HistoryEventHandler {
    private static final Gson JSON = new GsonBuilder().setDateFormat("yyyy-MM-dd'T'HH:mm:ss.SSSXXX").create();

    @Override
    public void handleEvents(List<HistoryEvent> events) {
        events.forEach(this::handleEvent);
    }

    @Override
    public void handleEvent(HistoryEvent event) {
        if (event.getProcessInstanceId() == null) {
            return; // a task of no process
        }
        if (event instanceof HistoricTaskInstanceEventEntity task) {
            report(withPeople(JSON.toJsonTree(task).getAsJsonObject(), task));
        } else if (event instanceof HistoricProcessInstanceEventEntity) {
            report(JSON.toJsonTree(event).getAsJsonObject());
        }
    }

    /** The candidates, and who completed it: the event has only the assignee. */
    private static JsonObject withPeople(JsonObject told, HistoricTaskInstanceEventEntity event) {
        var context = Context.getCommandContext();
        var task = context.getTaskManager().findTaskById(event.getTaskId());
        if (!event.isEventOfType(HistoryEventTypes.TASK_INSTANCE_COMPLETE) && task != null) {
            var candidates = task.getCandidates().stream().map(IdentityLink::getUserId);
            told.add("candidateUsers", JSON.toJsonTree(candidates.toList()));
        }
        if (TaskEntity.DELETE_REASON_COMPLETED.equals(event.getDeleteReason())) {
            told.addProperty("completedBy", context.getAuthenticatedUserId());
        }
        return told;
    }

    private static void report(JsonObject told) {
        told.add("timestamp", JSON.toJsonTree(ClockUtil.getCurrentTime()));
        PostJob.keep(Context.getCommandContext(), told.toString());
    }
}
