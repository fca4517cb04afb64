//! Folds a partition's records with the service's own core, and hands the resulting records on.

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use _native::fold::{ChunkOptions, Event, FormFields, Known, Sink, fold_all, prepare, publish};

use crate::given::Given;

/// A record of events: key, value, offset.
pub type Read<'m> = (Option<&'m [u8]>, &'m [u8], i64);

/// Loads the instances of a chunk, and receives its records.
pub trait Partition: Sink {
    /// The value that is stored under a key.
    fn load(&self, key: &[u8]) -> Option<Vec<u8>>;
}

pub struct Folding {
    given: Given,
    frames: [Vec<u8>; 1],
    form_fields: FormFields,
    none: HashSet<i64>,
}

impl Folding {
    pub fn new(given: Given) -> Self {
        let form_fields = FormFields::new(HashSet::new(), &given.rules.every_field, given.rules.form_bytes);
        Self { frames: [given.event_frame.clone()], given, form_fields, none: HashSet::new() }
    }

    /// Fold the records of one partition, in their order.
    ///
    /// Panics where an event cannot be folded: the reference job has no event that the service would reject.
    pub fn fold(&self, records: &[Read<'_>], partition: &mut impl Partition) {
        let given = &self.given;
        let read = |value| Event::read_own(value, &self.frames, &self.form_fields);
        let events: Vec<_> = records.iter().map(|&(_, value, _)| read(value)).collect();
        let keys = records.iter().map(|&(key, _, offset)| (key, offset));
        let (events, with_key) = prepare(keys, events, &given.rules);
        assert_eq!(events.len(), records.len(), "an event cannot be read");
        let keys: Vec<&[u8]> = with_key.iter().filter_map(|&record| records[record].0).collect();
        let stored: Vec<_> = keys.iter().map(|key| partition.load(key)).collect();
        let read = |bytes| Known::read(bytes, &given.state_frame).expect("an instance reads back");
        let stored = stored.iter().map(Option::as_deref);
        let mut known: Vec<Known<'_>> = stored.map(|each| each.map_or_else(Known::default, read)).collect();
        let options = ChunkOptions {
            rules: &given.rules,
            state_frame: &given.state_frame,
            notification_frame: &given.notification_frame,
            now_ms: now_ms(),
            too_large: &self.none,
            max_published_bytes: given.max_published_bytes,
        };
        let outcome = fold_all(&events, &mut known, options);
        assert!(outcome.refused.is_empty() && outcome.unpublished.is_empty(), "an event is rejected");
        publish(&outcome, &events, &keys, &given.rules, &given.headers, partition);
    }
}

fn now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock behind 1970");
    i64::try_from(elapsed.as_millis()).expect("a clock before the year 292 million")
}
