//! A notification as its record: key, id, Avro value, and what its headers say.
//!
//! Mirrors `TaskNotification` and `notification_id_for` of `schemas/events.py`.

use sha1::{Digest, Sha1};

use crate::avro::Writer;
use crate::cloudevents::{Id, uuid_text};
use crate::fold::event::Event;
use crate::fold::instance::Instance;
use crate::fold::stored::write_person;
use crate::fold::views::{Entry, Key};
use crate::fold::words::Change;

/// The same for ever for the same change of the same entry by the same event.
pub fn notification_id(namespace: [u8; 16], event_id: &str, key: &Key<'_>, change: Change) -> Id {
    let mut hash = Sha1::new();
    hash.update(namespace);
    let task_id = key.task_id.unwrap_or("");
    for part in [event_id, key.user_id, key.view.text(), task_id] {
        hash.update(part);
        hash.update("\n");
    }
    hash.update(change.text());
    uuid_text(&hash.finalize())
}

/// The same for ever for the same revision of an instance's state.
pub fn state_id(namespace: [u8; 16], instance: &Instance<'_>) -> Id {
    let mut hash = Sha1::new();
    hash.update(namespace);
    hash.update("state\n");
    hash.update(instance.instance_id);
    hash.update(format!("\n{}\n{}", instance.revision, instance.updated_at));
    uuid_text(&hash.finalize())
}

/// The Avro body of a notification, in the order of `schemas/avro/TaskNotification.avsc`.
pub fn write_notification(
    out: &mut Vec<u8>,
    notification_id: &Id,
    instance: &Instance<'_>,
    event: &Event<'_>,
    key: &Key<'_>,
    change: Change,
    entry: &Entry<'_>,
) {
    out.count(notification_id.len());
    out.extend_from_slice(notification_id);
    out.text(instance.corp_id);
    out.text(key.user_id);
    out.count(key.view.number());
    out.count(change.number());
    out.text(instance.instance_id);
    out.optional_text(key.task_id);
    out.optional_text(entry.title);
    out.optional_text(entry.url);
    out.text(entry.app_type);
    write_person(out, entry.originator);
    out.optional_text(entry.actor_id);
    out.count(entry.status.number());
    out.long(event.occurred_at);
    out.text(event.event_id);
    out.optional_text(entry.process_name);
    out.optional_long(Some(entry.entered_at));
    out.optional_long(Some(entry.updated_at));
    out.text(entry.source);
    out.optional_text(entry.outcome);
    out.optional_text(entry.remark);
    out.optional_long(entry.finished_at);
    out.optional_text(entry.result);
    out.optional_text(event.recovered_by);
}
