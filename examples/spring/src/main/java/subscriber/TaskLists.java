package subscriber;

import org.springframework.jdbc.core.simple.JdbcClient;
import org.springframework.stereotype.Component;
import org.springframework.transaction.annotation.Transactional;
import taskbridge.v1.Change;
import taskbridge.v1.TaskNotification;
import taskbridge.v1.View;

/** Everybody's lists (schema.sql), with the ids of applied changes: a repeat changes nothing. */
@Component
class TaskLists {
    private final JdbcClient file;

    TaskLists(JdbcClient file) {
        this.file = file;
    }

    /** Changes the lists and records the id that identifies a repeat. */
    @Transactional
    void apply(TaskNotification told) {
        if (run("INSERT OR IGNORE INTO seen (notification_id) VALUES (?)", told.getNotificationId()) == 0) {
            return;
        }
        // In SQL no two nulls are equal, and an entry about a whole instance has no task.
        var task = told.getTaskId() == null ? "" : told.getTaskId();
        var view = told.getView();
        var change = told.getChange();
        if (change == Change.REMOVED) {
            run("DELETE FROM entries WHERE (corp_id, user_id, view, instance_id, task_id) = (?, ?, ?, ?, ?)",
                    told.getCorpId(), told.getRecipientId(), view.name(), told.getInstanceId(), task);
        } else if (change != Change.UNKNOWN && view != View.UNKNOWN) { // those are of a newer version
            var entered = told.getEnteredAt() == null ? told.getOccurredAt() : told.getEnteredAt();
            run("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    told.getCorpId(), told.getRecipientId(), view.name(), told.getInstanceId(), task,
                    told.getTitle(), told.getStatus().name(), entered.toEpochMilli());
        }
    }

    private int run(String sql, Object... values) {
        return file.sql(sql).params(values).update();
    }
}
