package taskbridge.bench;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import taskbridge.v1.Change;
import taskbridge.v1.Lifecycle;
import taskbridge.v1.Person;
import taskbridge.v1.Status;
import taskbridge.v1.TaskEntry;
import taskbridge.v1.TaskEvent;
import taskbridge.v1.TaskNotification;
import taskbridge.v1.View;

/** The entries of schemas/views.py, and the notifications of streams/fold/views.py. */
final class Views {
    record Key(String userId, View view, String taskId) {}

    record Entry(String title, String url, String appType, Person originator, String actorId, Status status,
            String processName, String source, long enteredAt, long updatedAt, String outcome, String remark,
            Long finishedAt, String result) {
        Entry at(long enteredAt, long updatedAt) {
            return new Entry(title, url, appType, originator, actorId, status, processName, source, enteredAt,
                    updatedAt, outcome, remark, finishedAt, result);
        }
    }

    private final Ids ids = new Ids();

    static Map<Key, Entry> of(Instance instance) {
        var state = instance.state();
        var shown = new LinkedHashMap<Key, Entry>();
        if (state.getRevision() == 0 || state.getLifecycle() == Lifecycle.DELETED) {
            return shown;
        }
        var whole = instanceEntry(instance);
        if (state.getOriginator() != null) {
            shown.put(new Key(state.getOriginator().getUserId(), View.CREATED, null), whole);
        }
        for (var copied : state.getCopied()) {
            var at = copied.getAt();
            shown.put(new Key(copied.getUserId(), View.COPIED, null), whole.at(at, Math.max(at, whole.updatedAt)));
        }
        for (var userId : unnamedAssignees(instance)) {
            shown.put(new Key(userId, View.PENDING, null), entry(instance, Status.PENDING));
        }
        for (var task : state.getTasks()) {
            if (task.getStatus() == Status.PENDING) {
                for (var userId : task.getAssigneeIds()) {
                    var entry = taskEntry(instance, task, task.getCreatedAt());
                    shown.put(new Key(userId, View.PENDING, task.getTaskId()), entry);
                }
            } else if (task.getStatus() == Status.COMPLETED && task.getActorId() != null) {
                var entry = taskEntry(instance, task, task.getDecidedAt());
                shown.put(new Key(task.getActorId(), View.HANDLED, task.getTaskId()), entry);
            }
        }
        return shown;
    }

    List<TaskNotification> difference(Map<Key, Entry> before, Instance after, boolean changed, TaskEvent event) {
        var shown = of(after);
        var found = new ArrayList<TaskNotification>(4);
        if (!changed) {
            for (var key : everShown(after)) {
                var entry = shown.get(key);
                found.add(notification(after, event, key, entry == null ? Change.REMOVED : Change.UPDATED, entry));
            }
            return found;
        }
        before.forEach((key, entry) -> {
            if (!shown.containsKey(key)) {
                found.add(notification(after, event, key, Change.REMOVED, entry));
            }
        });
        shown.forEach((key, entry) -> {
            var was = before.get(key);
            if (!entry.equals(was)) {
                found.add(notification(after, event, key, was == null ? Change.ADDED : Change.UPDATED, entry));
            }
        });
        return found;
    }

    private static Iterable<Key> everShown(Instance instance) {
        var keys = new LinkedHashSet<Key>();
        var marks = instance.marks();
        marks.getOriginatorIds().forEach(each -> keys.add(new Key(each, View.CREATED, null)));
        instance.state().getCopied().forEach(each -> keys.add(new Key(each.getUserId(), View.COPIED, null)));
        marks.getAssigneeIds().forEach(each -> keys.add(new Key(each, View.PENDING, null)));
        for (var task : instance.state().getTasks()) {
            var id = task.getTaskId();
            task.getAssigneeIds().forEach(each -> keys.add(new Key(each, View.PENDING, id)));
            marks.getTasks().get(id).getActorIds().forEach(each -> keys.add(new Key(each, View.HANDLED, id)));
        }
        return keys;
    }

    static List<String> unnamedAssignees(Instance instance) {
        var marks = instance.marks();
        if (marks.getAssigneeIds().isEmpty()) {
            return List.of();
        }
        var named = new HashSet<String>();
        instance.state().getTasks().forEach(each -> named.addAll(each.getAssigneeIds()));
        marks.getTasks().values().forEach(each -> named.addAll(each.getActorIds()));
        return marks.getAssigneeIds().stream().filter(each -> !named.contains(each)).toList();
    }

    private static Entry instanceEntry(Instance instance) {
        var found = new boolean[Status.values().length];
        var beganAt = instance.marks().getBeganAt();
        var movedAt = beganAt;
        for (var task : instance.state().getTasks()) {
            found[task.getStatus().ordinal()] = true;
            movedAt = latest(movedAt, task.getCreatedAt(), task.getDecidedAt());
        }
        for (var status : List.of(Status.PENDING, Status.COMPLETED, Status.CANCELLED)) {
            if (found[status.ordinal()]) {
                return entry(instance, status).at(beganAt, movedAt);
            }
        }
        return entry(instance, Status.ACTIVE).at(beganAt, movedAt);
    }

    private static long latest(long known, Long createdAt, Long decidedAt) {
        var latest = createdAt == null ? known : Math.max(known, createdAt);
        return decidedAt == null ? latest : Math.max(latest, decidedAt);
    }

    private static Entry taskEntry(Instance instance, TaskEntry task, Long at) {
        var state = instance.state();
        var since = at == null ? instance.marks().getBeganAt() : at;
        return new Entry(state.getTitle(), task.getUrl() == null ? state.getUrl() : task.getUrl(), state.getAppType(),
                state.getOriginator(), task.getActorId(), task.getStatus(), state.getProcessName(), state.getSource(),
                since, since, task.getOutcome(), task.getRemark(), null, null);
    }

    private static Entry entry(Instance instance, Status status) {
        var state = instance.state();
        var at = instance.marks().getBeganAt();
        return new Entry(state.getTitle(), state.getUrl(), state.getAppType(), state.getOriginator(), null, status,
                state.getProcessName(), state.getSource(), at, at, null, null, state.getFinishedAt(), state.getResult());
    }

    private TaskNotification notification(Instance instance, TaskEvent event, Key key, Change change, Entry given) {
        var entry = given == null ? instanceEntry(instance) : given;
        var state = instance.state();
        var id = ids.notificationId(event.getEventId(), key.userId, key.view.name(), key.taskId, change.name());
        return new TaskNotification(id, state.getCorpId(), key.userId, key.view, change, state.getInstanceId(),
                key.taskId, entry.title, entry.url, entry.appType, entry.originator, entry.actorId, entry.status,
                event.getOccurredAt(), event.getEventId(), entry.processName, entry.enteredAt, entry.updatedAt,
                entry.source, entry.outcome, entry.remark, entry.finishedAt, entry.result, null, null, null, null,
                event.getRecoveredBy());
    }
}
