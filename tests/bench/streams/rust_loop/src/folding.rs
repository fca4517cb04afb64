//! A partition's records folded by the service's own core, and what comes of them as records.

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use _native::fold::{Event, FormFields, Known, Outcome, Terms, fold_all, place, rfc3339, source};

use crate::given::Given;

/// A record of events: key, value, offset.
pub type Read<'m> = (Option<&'m [u8]>, &'m [u8], i64);

/// Of `CloudEvents`, in the contract's order.
type Headers<'h> = [(&'static str, &'h [u8]); 7];

/// Gives what a chunk is folded upon, and takes what it comes to, in its order.
pub trait Partition {
    /// What is stored under a key.
    fn load(&self, key: &[u8]) -> Option<Vec<u8>>;
    /// An instance as the changelog and the store have it.
    fn instance(&mut self, key: &[u8], stored: &[u8]);
    /// A state for its topic; without a value where the instance is deleted.
    fn state(&mut self, key: &[u8], value: Option<&[u8]>, headers: &[(&'static str, &[u8])]);
    fn notification(&mut self, key: &[u8], value: &[u8], headers: &[(&'static str, &[u8])]);
}

pub struct Folding {
    given: Given,
    frames: [Vec<u8>; 1],
    wanted: FormFields,
    none: HashSet<i64>,
}

impl Folding {
    pub fn new(given: Given) -> Self {
        let wanted = FormFields::new(HashSet::new(), &given.rules.every_field, given.rules.form_bytes);
        Self { frames: [given.event_frame.clone()], given, wanted, none: HashSet::new() }
    }

    /// Fold the records of one partition, in their order.
    ///
    /// Panics where one cannot be folded: the reference job has none that the service would set aside.
    pub fn fold(&self, records: &[Read<'_>], partition: &mut impl Partition) {
        let given = &self.given;
        let read = |value| Event::read_own(value, &self.frames, &self.wanted);
        let events: Vec<_> = records.iter().map(|&(_, value, _)| read(value)).collect();
        let keys = records.iter().map(|&(key, _, offset)| (key, offset));
        let (events, with_key) = place(keys, events, &given.rules);
        assert_eq!(events.len(), records.len(), "an event cannot be read");
        let keys: Vec<&[u8]> = with_key.iter().filter_map(|&record| records[record].0).collect();
        let stored: Vec<_> = keys.iter().map(|key| partition.load(key)).collect();
        let read = |bytes| Known::read(bytes, &given.state_frame).expect("an instance reads back");
        let stored = stored.iter().map(Option::as_deref);
        let mut known: Vec<Known<'_>> = stored.map(|each| each.map_or_else(Known::default, read)).collect();
        let terms = Terms {
            rules: &given.rules,
            state_frame: &given.state_frame,
            notification_frame: &given.notification_frame,
            now_ms: now_ms(),
            too_large: &self.none,
            told_bytes: given.told_bytes,
        };
        let outcome = fold_all(&events, &mut known, terms);
        assert!(outcome.refused.is_empty() && outcome.untold.is_empty(), "an event is set aside");
        let Outcome { bytes, written, told, .. } = &outcome;
        for each in written {
            let key = keys[each.known];
            partition.instance(key, &bytes[each.stored.clone()]);
            let kind = if each.is_deleted { &given.state_deleted } else { &given.state_changed };
            let at = each.updated_at.clamp(*given.rules.moments.start(), *given.rules.moments.end());
            let (from, time) = (source(each.source), rfc3339(at));
            let headers = headers(&each.id, kind, &from, key, &time);
            // A tombstone has no content, and so no type of it.
            let (value, headers) = if each.is_deleted {
                (None, &headers[..headers.len() - 1])
            } else {
                (Some(&bytes[each.state.clone()]), &headers[..])
            };
            partition.state(key, value, headers);
        }
        for each in told {
            let event = &events[each.cause].event;
            let kind = &given.notification_types[each.change.number()];
            let (from, time) = (source(each.source), rfc3339(event.occurred_at));
            let headers = headers(&each.id, kind, &from, event.instance_id.as_bytes(), &time);
            partition.notification(&bytes[each.key.clone()], &bytes[each.value.clone()], &headers);
        }
    }
}

fn headers<'h>(id: &'h [u8], kind: &'h str, from: &'h [u8], subject: &'h [u8], time: &'h [u8]) -> Headers<'h> {
    [
        ("ce_specversion", b"1.0"),
        ("ce_id", id),
        ("ce_type", kind.as_bytes()),
        ("ce_source", from),
        ("ce_subject", subject),
        ("ce_time", time),
        ("content-type", b"application/avro"),
    ]
}

fn now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock behind 1970");
    i64::try_from(elapsed.as_millis()).expect("a clock before the year 292 million")
}
