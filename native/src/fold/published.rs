//! The ids, headers and bodies of what a chunk publishes. Mirrors `schemas/cloudevents.py` and `schemas/events.py`.

use sha1::{Digest, Sha1};

use crate::avro::Writer;
use crate::batches::Header;
use crate::cloudevents::{Id, uuid_text};
use crate::fold::event::{Change, Event};
use crate::fold::instance::Instance;
use crate::fold::stored::write_person;
use crate::fold::views::{Entry, Key};

pub type FixedHeader = (String, Vec<u8>);

/// The headers with a fixed value, which Python defines.
pub struct FixedHeaders {
    pub specversion: FixedHeader,
    pub content_type: FixedHeader,
    /// By change.
    pub notification_types: Vec<FixedHeader>,
    pub state_changed: FixedHeader,
    pub state_deleted: FixedHeader,
}

impl FixedHeaders {
    pub fn of<'h>(
        &'h self,
        id: &'h [u8],
        kind: &'h FixedHeader,
        from: &'h [u8],
        subject: &'h [u8],
        time: &'h [u8],
    ) -> [Header<'h>; 7] {
        let plain = |(name, value): &'h FixedHeader| (name.as_str(), Some(value.as_slice()));
        [
            plain(&self.specversion),
            ("ce_id", Some(id)),
            plain(kind),
            ("ce_source", Some(from)),
            ("ce_subject", Some(subject)),
            ("ce_time", Some(time)),
            plain(&self.content_type),
        ]
    }
}

/// Always the same for the same change of the same entry by the same event.
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

/// Always the same for the same revision of an instance's state.
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
    out.optional_text(entry.step_name);
    out.optional_text(entry.step_id);
    out.optional_text(entry.decided_by);
    out.optional_long(entry.due_at);
    out.optional_text(event.recovered_by);
}
