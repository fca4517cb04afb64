//! One chunk of a partition's records, folded and turned into what must be written. Mirrors `streams/fold/chunk.py`.
//!
//! Knows nothing of Python: `python.rs` gives it borrowed bytes, and `records.rs` makes records of what it gives back.

use std::collections::HashMap;
use std::ops::Range;

use crate::avro::Read;
use crate::cloudevents::Id;
use crate::fold::acceptance::accept;
use crate::fold::event::Event;
use crate::fold::instance::Instance;
use crate::fold::lifecycle::{check, fold};
use crate::fold::refusal::Refusal;
use crate::fold::rules::{Rules, Terms};
use crate::fold::stored::{self, Offsets};
use crate::fold::told::{notification_id, state_id, write_notification};
use crate::fold::views::{Entry, Key, Lines, tell_again, tell_difference, views};
use crate::fold::words::{Action, Change, Lifecycle, View};

/// An instance that the chunk meets, under its record key.
#[derive(Default)]
pub struct Known<'a> {
    instance: Option<Instance<'a>>,
    offsets: Offsets,
    lines: Option<Lines<'a>>,
    is_folded: bool,
}

impl<'a> Known<'a> {
    /// The instance as it was stored.
    pub fn read(bytes: &'a [u8], state_frame: &[u8]) -> Read<Self> {
        let (instance, offsets) = stored::read(bytes, state_frame)?;
        Ok(Self { instance: Some(instance), offsets, ..Self::default() })
    }
}

/// A record that could be read, and the place of its instance among those that are known.
pub struct Given<'a> {
    pub record: usize,
    pub offset: i64,
    pub event: Event<'a>,
    pub known: Result<usize, Refusal<'a>>,
}

/// Where an instance that was folded into stands in `Outcome::bytes`.
pub struct Written<'a> {
    pub known: usize,
    pub stored: Range<usize>,
    pub state: Range<usize>,
    pub is_deleted: bool,
    /// What the headers of its state need.
    pub id: Id,
    /// Of its `ce_source`.
    pub source: [&'a str; 3],
    pub updated_at: i64,
}

/// Where a notification stands in `Outcome::bytes`, and what its headers need.
pub struct Told<'a> {
    /// Place among what was given.
    pub cause: usize,
    pub key: Range<usize>,
    pub value: Range<usize>,
    pub id: Id,
    pub change: Change,
    /// Of its `ce_source`.
    pub source: [&'a str; 3],
}

/// What a chunk comes to.
#[derive(Default)]
pub struct Outcome<'a> {
    pub bytes: Vec<u8>,
    /// In the order in which instances were first folded into.
    pub written: Vec<Written<'a>>,
    pub told: Vec<Told<'a>>,
    /// Records that were set aside, in their order.
    pub refused: Vec<(usize, Refusal<'a>)>,
    /// Events that were folded, by action.
    pub actions: [u64; Action::ALL.len()],
    /// Notifications, by view and change.
    pub changes: [[u64; Change::ALL.len()]; View::ALL.len()],
    /// Places of what was given of which more would have to be told than `Terms::told_bytes`; growing.
    pub untold: Vec<usize>,
    told_bytes: usize,
}

/// Give each event that is accepted the place of its instance; and of each instance one of the records with its key.
///
/// Only these are loaded: an id that is none might be the name under which the store keeps something else.
/// `records`: keys and offsets. `events`: of each record that could be read.
pub fn place<'a>(
    records: impl Iterator<Item = (Option<&'a [u8]>, i64)>,
    events: Vec<Option<Event<'a>>>,
    rules: &Rules,
) -> (Vec<Given<'a>>, Vec<usize>) {
    let mut with_key: Vec<usize> = Vec::new();
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    let mut given = Vec::with_capacity(events.len());
    for (record, ((key, offset), event)) in records.zip(events).enumerate() {
        let Some(mut event) = event else {
            continue;
        };
        let key = key.filter(|key| *key == event.instance_id.as_bytes());
        let known = accept(&mut event, rules).and(key.ok_or(Refusal::MisplacedKey)).map(|key| {
            *places.entry(key).or_insert_with(|| {
                with_key.push(record);
                with_key.len() - 1
            })
        });
        given.push(Given { record, offset, event, known });
    }
    (given, with_key)
}

/// Fold the records in their order. Events of one instance fold together: it is written once.
pub fn fold_all<'a>(given: &[Given<'a>], known: &mut [Known<'a>], terms: Terms<'_>) -> Outcome<'a> {
    let mut outcome = Outcome::default();
    let mut folded: Vec<usize> = Vec::new();
    for (cause, each) in given.iter().enumerate() {
        let checked = each.known.and_then(|place| {
            check(known[place].instance.as_ref(), &each.event)?;
            if terms.too_large.contains(&each.offset) { Err(Refusal::TooLarge) } else { Ok(place) }
        });
        let place = match checked {
            Ok(place) => place,
            Err(refusal) => {
                outcome.refused.push((each.record, refusal));
                continue;
            }
        };
        let known = &mut known[place];
        let before = match (known.lines.take(), &known.instance) {
            (Some(lines), _) => lines,
            (None, Some(instance)) => views(instance),
            (None, None) => Lines::default(),
        };
        let (instance, changed) = fold(&mut known.instance, &each.event);
        outcome.told_bytes = 0;
        let tell = |key: Key<'a>, change, entry: Entry<'a>| {
            if outcome.untold.last() != Some(&cause) {
                outcome.tell(cause, instance, &each.event, key, change, entry, terms);
            }
        };
        if changed {
            let after = views(instance);
            tell_difference(&before, &after, tell);
            known.lines = Some(after);
        } else {
            tell_again(instance, &before, tell);
            known.lines = Some(before);
        }
        known.offsets.add(each.offset);
        outcome.actions[each.event.action.number()] += 1;
        if !known.is_folded {
            known.is_folded = true;
            folded.push(place);
        }
    }
    for place in folded {
        if let Some(instance) = &known[place].instance {
            outcome.write(place, instance, &known[place].offsets, terms);
        }
    }
    outcome
}

impl<'a> Outcome<'a> {
    /// Bytes of the largest instance or notification.
    pub fn largest(&self) -> usize {
        let written = self.written.iter().map(|each| each.stored.len());
        written.chain(self.told.iter().map(|each| each.value.len())).max().unwrap_or(0)
    }

    fn tell(
        &mut self,
        cause: usize,
        instance: &Instance<'a>,
        event: &Event<'a>,
        key: Key<'a>,
        change: Change,
        entry: Entry<'a>,
        terms: Terms<'_>,
    ) {
        let id = notification_id(terms.rules.id_namespace, event.event_id, &key, change);
        let bytes = &mut self.bytes;
        let begin = bytes.len();
        bytes.extend_from_slice(instance.corp_id.as_bytes());
        bytes.push(b'/');
        bytes.extend_from_slice(key.user_id.as_bytes());
        let key_end = bytes.len();
        bytes.extend_from_slice(terms.notification_frame);
        write_notification(bytes, &id, instance, event, &key, change, &entry);
        self.told_bytes += bytes.len() - key_end;
        if self.told_bytes > terms.told_bytes {
            bytes.truncate(begin);
            self.untold.push(cause);
            return;
        }
        self.changes[key.view.number()][change.number()] += 1;
        self.told.push(Told {
            cause,
            key: begin..key_end,
            value: key_end..self.bytes.len(),
            id,
            change,
            source: [entry.source, instance.corp_id, entry.app_type],
        });
    }

    fn write(&mut self, known: usize, instance: &Instance<'a>, offsets: &Offsets, terms: Terms<'_>) {
        let begin = self.bytes.len();
        let state = stored::write(&mut self.bytes, instance, offsets, terms);
        self.written.push(Written {
            known,
            stored: begin..self.bytes.len(),
            state,
            is_deleted: instance.lifecycle == Lifecycle::Deleted,
            id: state_id(terms.rules.id_namespace, instance),
            source: [instance.source, instance.corp_id, instance.app_type.value],
            updated_at: instance.updated_at,
        });
    }
}
