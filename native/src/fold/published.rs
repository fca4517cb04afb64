//! The records that a chunk publishes, with their headers. Mirrors `schemas/cloudevents.py` and `schemas/events.py`.

use sha1::{Digest, Sha1};

use crate::avro::Writer;
use crate::batches::Header;
use crate::cloudevents::{Id, rfc3339, source, uuid_text};
use crate::fold::chunk::{Outcome, Prepared};
use crate::fold::event::{Change, Event};
use crate::fold::instance::Instance;
use crate::fold::rules::Rules;
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

/// Receives the records of a chunk, in their order.
pub trait Sink {
    /// An instance for the changelog and the store.
    fn instance(&mut self, key: &[u8], stored: &[u8]);
    /// A state for its topic; a tombstone where the instance is deleted.
    fn state(&mut self, key: &[u8], value: Option<&[u8]>, headers: &[Header<'_>]);
    fn notification(&mut self, key: &[u8], value: &[u8], headers: &[Header<'_>]);
}

/// Give all records of a chunk to the sink. `keys`: as `prepare` returned them.
pub fn publish(
    outcome: &Outcome<'_>,
    prepared: &[Prepared<'_>],
    keys: &[&[u8]],
    rules: &Rules,
    fixed: &FixedHeaders,
    sink: &mut impl Sink,
) {
    for each in &outcome.written {
        let key = keys[each.known];
        sink.instance(key, &outcome.bytes[each.stored.clone()]);
        let kind = if each.is_deleted { &fixed.state_deleted } else { &fixed.state_changed };
        let at = each.updated_at.clamp(*rules.moments.start(), *rules.moments.end());
        let (from, time) = (source(each.source), rfc3339(at));
        let headers = headers(fixed, &each.id, kind, &from, key, &time);
        // A tombstone has no content type, which is the last header.
        let (value, headers) = if each.is_deleted {
            (None, &headers[..headers.len() - 1])
        } else {
            (Some(&outcome.bytes[each.state.clone()]), &headers[..])
        };
        sink.state(key, value, headers);
    }
    for each in &outcome.notifications {
        let event = &prepared[each.cause].event;
        let kind = &fixed.notification_types[each.change.number()];
        let (from, time) = (source(each.source), rfc3339(event.occurred_at));
        let headers = headers(fixed, &each.id, kind, &from, event.instance_id.as_bytes(), &time);
        sink.notification(&outcome.bytes[each.key.clone()], &outcome.bytes[each.value.clone()], &headers);
    }
}

fn headers<'h>(
    fixed: &'h FixedHeaders,
    id: &'h [u8],
    kind: &'h FixedHeader,
    from: &'h [u8],
    subject: &'h [u8],
    time: &'h [u8],
) -> [Header<'h>; 7] {
    let plain = |(name, value): &'h FixedHeader| (name.as_str(), Some(value.as_slice()));
    [
        plain(&fixed.specversion),
        ("ce_id", Some(id)),
        plain(kind),
        ("ce_source", Some(from)),
        ("ce_subject", Some(subject)),
        ("ce_time", Some(time)),
        plain(&fixed.content_type),
    ]
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
