package taskbridge.bench;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;
import taskbridge.bench.stored.Marks;
import taskbridge.bench.stored.Stamp;
import taskbridge.bench.stored.TaskMarks;
import taskbridge.v1.Action;
import taskbridge.v1.CopiedEntry;
import taskbridge.v1.Lifecycle;
import taskbridge.v1.Status;
import taskbridge.v1.TaskEntry;
import taskbridge.v1.TaskEvent;
import taskbridge.v1.TaskState;

/** The fold of streams/fold/instance.py, with the same registers and marks. */
final class Fold {
    private final Instance instance;
    private final TaskEvent event;
    private final long at;
    private final String eventId;
    private boolean changed;

    private Fold(Instance instance, TaskEvent event) {
        this.instance = instance;
        this.event = event;
        this.at = event.getOccurredAt();
        this.eventId = event.getEventId();
    }

    static Instance unknown(TaskEvent event) {
        var state = new TaskState(event.getInstanceId(), event.getCorpId(), event.getAppType(), null, null, null, null,
                null, Lifecycle.ACTIVE, new ArrayList<>(), new ArrayList<>(), event.getOccurredAt(), 0L,
                event.getSource(), null, null, null, null, null, null, new HashMap<>(), null, new ArrayList<>());
        return new Instance(
                state, new Marks(new HashMap<>(), new HashMap<>(), new ArrayList<>(), new ArrayList<>(), null,
                        Long.MAX_VALUE, event.getReceivedAt()));
    }

    /** Changes the instance in place; false when the event says nothing new. */
    static boolean apply(Instance instance, TaskEvent event) {
        var state = instance.state();
        if (event.getAction() == Action.UNKNOWN || !state.getCorpId().equals(event.getCorpId())
                || !state.getAppType().equals(event.getAppType()) || !state.getSource().equals(event.getSource())) {
            throw new IllegalArgumentException("belongs in the dead-letter topic, which the job's input does not need");
        }
        var fold = new Fold(instance, event);
        fold.run();
        state.setBeganAt(instance.marks().getBeganAt());
        state.setAssigneeIds(Views.unnamedAssignees(instance));
        var changed = fold.changed || state.getRevision() == 0;
        if (changed) {
            state.setRevision(state.getRevision() + 1);
        }
        return changed;
    }

    private void run() {
        facts();
        switch (event.getAction()) {
            case CREATED -> created();
            case COMPLETED -> decided(Status.COMPLETED);
            case CANCELLED -> decided(Status.CANCELLED);
            case COPIED -> copied();
            default -> deleted();
        }
    }

    private void facts() {
        var state = instance.state();
        fact("app_type", event.getAppType(), state::setAppType);
        fact("title", event.getTitle(), state::setTitle);
        fact("url", event.getUrl(), state::setUrl);
        fact("originator", event.getOriginator(), state::setOriginator);
        fact("process_code", event.getProcessCode(), state::setProcessCode);
        fact("process_name", event.getProcessName(), state::setProcessName);
        fact("form_uuid", event.getFormUuid(), state::setFormUuid);
        fact("serial_no", event.getSerialNo(), state::setSerialNo);
        fact("instance_status", event.getInstanceStatus(), state::setInstanceStatus);
        fact("approved_result", event.getApprovedResult(), state::setApprovedResult);
        fact("finished_at", event.getFinishedAt(), state::setFinishedAt);
        if (state.getFinishedAt() != null) {
            var approved = state.getApprovedResult();
            state.setResult(approved == null || approved.isEmpty() ? state.getInstanceStatus() : approved);
        }
        var beganAt = event.getCreatedAt() == null ? at : Math.min(at, event.getCreatedAt());
        if (beganAt < instance.marks().getBeganAt()) {
            instance.marks().setBeganAt(beganAt);
            changed = true;
        }
        if (event.getReceivedAt() < instance.marks().getFirstReceivedAt()) {
            instance.marks().setFirstReceivedAt(event.getReceivedAt());
            changed = true;
        }
        if (at > state.getUpdatedAt()) {
            state.setUpdatedAt(at);
            changed = true;
        }
        if (event.getOriginator() != null) {
            add(instance.marks().getOriginatorIds(), event.getOriginator().getUserId());
        }
    }

    private <T> void fact(String name, T value, Consumer<T> set) {
        Map<String, Stamp> stamps = instance.marks().getFacts();
        if (value != null && isAfter(stamps.get(name))) {
            set.accept(value);
            stamps.put(name, new Stamp(at, eventId));
            changed = true;
        }
    }

    private void created() {
        if (event.getTaskId() == null) {
            event.getRecipientIds().forEach(each -> add(instance.marks().getAssigneeIds(), each));
            return;
        }
        var entry = task(event.getTaskId());
        var marks = instance.marks().getTasks().get(event.getTaskId());
        event.getRecipientIds().forEach(each -> add(entry.getAssigneeIds(), each));
        var createdAt = event.getCreatedAt() == null ? Long.valueOf(at) : event.getCreatedAt();
        if (entry.getCreatedAt() == null || createdAt < entry.getCreatedAt()) {
            entry.setCreatedAt(createdAt);
            changed = true;
        }
        if (event.getUrl() != null && isAfter(marks.getUrl())) {
            entry.setUrl(event.getUrl());
            marks.setUrl(new Stamp(at, eventId));
            changed = true;
        }
    }

    private void decided(Status status) {
        if (event.getTaskId() == null) {
            return;
        }
        var entry = task(event.getTaskId());
        var marks = instance.marks().getTasks().get(event.getTaskId());
        if (isLaterDecision(status, entry, marks)) {
            entry.setStatus(status);
            entry.setActorId(event.getActorId());
            entry.setDecidedAt(at);
            entry.setOutcome(event.getOutcome());
            entry.setRemark(event.getRemark());
            marks.setDecidedBy(eventId);
            changed = true;
        }
        if (event.getActorId() != null) {
            add(marks.getActorIds(), event.getActorId());
        }
    }

    private boolean isLaterDecision(Status status, TaskEntry entry, TaskMarks marks) {
        if (entry.getDecidedAt() == null) {
            return true;
        }
        if (at != entry.getDecidedAt()) {
            return at > entry.getDecidedAt();
        }
        if (status != entry.getStatus()) {
            return status == Status.COMPLETED;
        }
        return eventId.compareTo(marks.getDecidedBy()) > 0;
    }

    private void copied() {
        var copied = instance.state().getCopied();
        for (var userId : event.getRecipientIds()) {
            var place = 0;
            while (place < copied.size() && copied.get(place).getUserId().compareTo(userId) < 0) {
                place++;
            }
            if (place == copied.size() || !copied.get(place).getUserId().equals(userId)) {
                copied.add(place, new CopiedEntry(userId, at));
                changed = true;
            } else if (at < copied.get(place).getAt()) {
                copied.get(place).setAt(at);
                changed = true;
            }
        }
    }

    private void deleted() {
        var marks = instance.marks();
        if (marks.getDeletedAt() == null || at > marks.getDeletedAt()) {
            marks.setDeletedAt(at);
            changed = true;
        }
        instance.state().setLifecycle(Lifecycle.DELETED);
    }

    /** The task as known so far; a shell where its create has not come yet. Tasks are ordered by their ids. */
    private TaskEntry task(String taskId) {
        var tasks = instance.state().getTasks();
        var place = 0;
        while (place < tasks.size() && tasks.get(place).getTaskId().compareTo(taskId) < 0) {
            place++;
        }
        if (place < tasks.size() && tasks.get(place).getTaskId().equals(taskId)) {
            return tasks.get(place);
        }
        // The last four: events of this workload name no steps.
        var shell = new TaskEntry(taskId, Status.PENDING, new ArrayList<>(), null, null, null, null, null, null,
                null, null, null, null);
        tasks.add(place, shell);
        instance.marks().getTasks().put(taskId, new TaskMarks(null, null, new ArrayList<>()));
        changed = true;
        return shell;
    }

    private void add(List<String> sorted, String id) {
        var place = 0;
        while (place < sorted.size() && sorted.get(place).compareTo(id) < 0) {
            place++;
        }
        if (place == sorted.size() || !sorted.get(place).equals(id)) {
            sorted.add(place, id);
            changed = true;
        }
    }

    private boolean isAfter(Stamp stamp) {
        return stamp == null || at > stamp.getAt() || at == stamp.getAt() && eventId.compareTo(stamp.getEventId()) > 0;
    }
}
