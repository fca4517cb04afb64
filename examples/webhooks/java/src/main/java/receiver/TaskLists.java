package receiver;

import org.springframework.jdbc.core.simple.JdbcClient;
import org.springframework.stereotype.Component;
import org.springframework.transaction.annotation.Transactional;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.ObjectMapper;

/** Everybody's lists (schema.sql), with the ids of applied changes: a repeat changes nothing. */
@Component
class TaskLists {
    private final JdbcClient file;
    private final ObjectMapper json;

    TaskLists(JdbcClient file, ObjectMapper json) {
        this.file = file;
        this.json = json;
    }

    /** Changes the lists and records the id that identifies a repeat. */
    @Transactional
    void apply(String webhookId, String event) {
        if (run("INSERT OR IGNORE INTO seen (notification_id) VALUES (?)", webhookId) == 0) {
            return;
        }
        var change = json.readTree(event).get("data");
        // In SQL no two nulls are equal, and an entry about a whole instance has no task.
        var task = change.get("task_id").isNull() ? "" : text(change, "task_id");
        if (text(change, "change").equals("REMOVED")) {
            run("DELETE FROM entries WHERE (corp_id, user_id, view, instance_id, task_id) = (?, ?, ?, ?, ?)",
                    text(change, "corp_id"), text(change, "recipient_id"), text(change, "view"),
                    text(change, "instance_id"), task);
        } else {
            run("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    text(change, "corp_id"), text(change, "recipient_id"), text(change, "view"),
                    text(change, "instance_id"), task, text(change, "title"), text(change, "status"),
                    text(change, "entered_at"));
        }
    }

    private static String text(JsonNode change, String name) {
        return change.get(name).isNull() ? null : change.get(name).asString();
    }

    private int run(String sql, Object... values) {
        return file.sql(sql).params(values).update();
    }
}
