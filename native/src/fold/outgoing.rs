//! The records that a chunk comes to, with their headers. Mirrors `schemas/cloudevents.py`.

use crate::batches::Header;
use crate::cloudevents::{rfc3339, source};
use crate::fold::chunk::{Given, Outcome};
use crate::fold::rules::Rules;

/// A name and a value.
pub type FixedHeader = (String, Vec<u8>);

/// Those that say the same of many records. Python has them.
pub struct FixedHeaders {
    pub specversion: FixedHeader,
    pub content_type: FixedHeader,
    /// By change.
    pub notification_types: Vec<FixedHeader>,
    pub state_changed: FixedHeader,
    pub state_deleted: FixedHeader,
}

/// Takes what a chunk comes to, in its order.
pub trait Sink {
    /// An instance as the changelog and the store have it.
    fn instance(&mut self, key: &[u8], stored: &[u8]);
    /// A state for its topic; without a value where the instance is deleted.
    fn state(&mut self, key: &[u8], value: Option<&[u8]>, headers: &[Header<'_>]);
    fn notification(&mut self, key: &[u8], value: &[u8], headers: &[Header<'_>]);
}

/// `keys` of the instances that are known.
pub fn write_out(
    outcome: &Outcome<'_>,
    given: &[Given<'_>],
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
        // The record's key is the instance's id.
        let headers = headers(fixed, &each.id, kind, &from, key, &time);
        // A tombstone has no content, and so no type of it.
        let (value, headers) = if each.is_deleted {
            (None, &headers[..headers.len() - 1])
        } else {
            (Some(&outcome.bytes[each.state.clone()]), &headers[..])
        };
        sink.state(key, value, headers);
    }
    for each in &outcome.told {
        let event = &given[each.cause].event;
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
