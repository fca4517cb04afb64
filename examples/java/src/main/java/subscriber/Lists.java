package subscriber;

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import taskbridge.v1.Change;
import taskbridge.v1.TaskNotification;
import taskbridge.v1.View;

/** Everybody's lists in a SQLite file, with the ids of applied changes: a repeat changes nothing. */
final class Lists implements AutoCloseable {
    private static final String[] TABLES = {
        """
        CREATE TABLE IF NOT EXISTS seen (
            notification_id TEXT PRIMARY KEY, at INTEGER DEFAULT (unixepoch())
        ) WITHOUT ROWID""",
        """
        CREATE TABLE IF NOT EXISTS entries (
            corp_id TEXT, user_id TEXT, view TEXT, instance_id TEXT, task_id TEXT, title TEXT, status TEXT,
            entered_at INTEGER, PRIMARY KEY (corp_id, user_id, view, instance_id, task_id)
        ) WITHOUT ROWID""",
        "DELETE FROM seen WHERE at < unixepoch() - 8 * 86400", // the topic keeps seven days
    };

    private final Connection file;
    private final PreparedStatement isNew;
    private final PreparedStatement put;
    private final PreparedStatement takeAway;

    Lists(String path) throws SQLException {
        file = DriverManager.getConnection("jdbc:sqlite:" + path + "?busy_timeout=60000&journal_mode=WAL");
        try (var statement = file.createStatement()) {
            for (var each : TABLES) {
                statement.execute(each);
            }
        }
        file.setAutoCommit(false);
        isNew = file.prepareStatement("INSERT OR IGNORE INTO seen (notification_id) VALUES (?)");
        put = file.prepareStatement("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
        takeAway = file.prepareStatement(
                "DELETE FROM entries WHERE (corp_id, user_id, view, instance_id, task_id) = (?, ?, ?, ?, ?)");
    }

    /** Changes the lists; {@link #commit} stores this together with the id that identifies a repeat. */
    void apply(TaskNotification told) throws SQLException {
        if (run(isNew, told.getNotificationId()) == 0) {
            return;
        }
        // In SQL no two nulls are equal, and an entry about a whole instance has no task.
        var task = told.getTaskId() == null ? "" : told.getTaskId();
        var view = told.getView();
        var change = told.getChange();
        if (change == Change.REMOVED) {
            run(takeAway, told.getCorpId(), told.getRecipientId(), view.name(), told.getInstanceId(), task);
        } else if (change != Change.UNKNOWN && view != View.UNKNOWN) { // those are of a newer version
            var entered = told.getEnteredAt() == null ? told.getOccurredAt() : told.getEnteredAt();
            run(put, told.getCorpId(), told.getRecipientId(), view.name(), told.getInstanceId(), task,
                    told.getTitle(), told.getStatus().name(), entered.toEpochMilli());
        }
    }

    void commit() throws SQLException {
        file.commit();
    }

    private static int run(PreparedStatement statement, Object... values) throws SQLException {
        for (var at = 0; at < values.length; at++) {
            statement.setObject(at + 1, values[at]);
        }
        return statement.executeUpdate();
    }

    @Override
    public void close() throws SQLException {
        file.close();
    }
}
