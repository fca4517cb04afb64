package main

import (
	"context"
	"database/sql"

	_ "github.com/mattn/go-sqlite3"
)

const tables = `
CREATE TABLE IF NOT EXISTS seen (notification_id TEXT PRIMARY KEY, at INTEGER DEFAULT (unixepoch())) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
    corp_id TEXT, user_id TEXT, view TEXT, instance_id TEXT, task_id TEXT, title TEXT, status TEXT, entered_at INTEGER,
    PRIMARY KEY (corp_id, user_id, view, instance_id, task_id)
) WITHOUT ROWID;
DELETE FROM seen WHERE at < unixepoch() - 8 * 86400;  -- the topic keeps seven days
`

const (
	isNew    = `INSERT OR IGNORE INTO seen (notification_id) VALUES (?)`
	put      = `INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)`
	takeAway = `DELETE FROM entries WHERE (corp_id, user_id, view, instance_id, task_id) = (?, ?, ?, ?, ?)`
)

type lists struct{ *sql.DB }

func openLists(path string) (*lists, error) {
	file, err := sql.Open("sqlite3", "file:"+path+"?_busy_timeout=60000&_journal_mode=WAL&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	_, err = file.Exec(tables)
	return &lists{file}, err
}

// apply changes the lists and records the id in one transaction: a repeat changes nothing.
func (l *lists) apply(ctx context.Context, told []TaskNotification) error {
	tx, err := l.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for _, each := range told {
		if err := applyOne(tx, each); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func applyOne(tx *sql.Tx, told TaskNotification) error {
	result, err := tx.Exec(isNew, told.NotificationID)
	if err != nil {
		return err
	}
	if inserted, err := result.RowsAffected(); err != nil || inserted == 0 {
		return err
	}
	// In SQL no two nulls are equal, and an entry about a whole instance has no task.
	task := ""
	if told.TaskID != nil {
		task = *told.TaskID
	}
	entry := []any{told.CorpID, told.RecipientID, told.View, told.InstanceID, task}
	switch {
	case told.Change == ChangeRemoved:
		_, err = tx.Exec(takeAway, entry...)
	case told.Change != ChangeUnknown && told.View != ViewUnknown: // those are of a newer version
		entered := told.OccurredAt
		if told.EnteredAt != nil {
			entered = *told.EnteredAt
		}
		_, err = tx.Exec(put, append(entry, told.Title, told.Status, entered.UnixMilli())...)
	}
	return err
}
