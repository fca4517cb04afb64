//! A partition's records folded by the service's own core, and what comes of them as records.

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use _native::fold::{Event, FormFields, Known, Sink, Terms, fold_all, place, write_out};

use crate::given::Given;

/// A record of events: key, value, offset.
pub type Read<'m> = (Option<&'m [u8]>, &'m [u8], i64);

/// Gives what a chunk is folded upon, and takes what it comes to.
pub trait Partition: Sink {
    /// What is stored under a key.
    fn load(&self, key: &[u8]) -> Option<Vec<u8>>;
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
        write_out(&outcome, &events, &keys, &given.rules, &given.headers, partition);
    }
}

fn now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock behind 1970");
    i64::try_from(elapsed.as_millis()).expect("a clock before the year 292 million")
}
