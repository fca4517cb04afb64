//! One chunk of a partition's records, folded into stored instances and notifications. Mirrors `streams/fold/python.py`.

use std::collections::HashMap;
use std::ops::Range;

use crate::avro::Read;
use crate::cloudevents::Id;
use crate::fold::event::{Action, Change, Event, Lifecycle, View};
use crate::fold::instance::Instance;
use crate::fold::lifecycle::{check, fold};
use crate::fold::published::{notification_id, state_id, write_notification};
use crate::fold::rules::{ChunkOptions, Refusal, Rules, accept};
use crate::fold::stored;
use crate::fold::views::{Entries, Entry, Key, notify_changes, republish, views};

/// An instance of the chunk, as far as it is known.
#[derive(Default)]
pub struct Known<'a> {
    instance: Option<Instance<'a>>,
    events_lost: bool,
    entries: Option<Entries<'a>>,
    is_folded: bool,
}

impl<'a> Known<'a> {
    /// The instance as it was stored.
    pub fn read(bytes: &'a [u8], state_frame: &[u8]) -> Read<Self> {
        let (instance, events_lost) = stored::read(bytes, state_frame)?;
        Ok(Self { instance: Some(instance), events_lost, ..Self::default() })
    }
}

/// An event that could be read, and the index of its instance among the known instances.
pub struct Prepared<'a> {
    /// Index of its record.
    pub record: usize,
    pub offset: i64,
    pub event: Event<'a>,
    pub known: Result<usize, Refusal<'a>>,
}

/// An instance that changed: where its forms are in `Outcome::bytes`, and the values of its headers.
pub struct Written<'a> {
    /// Index among the known instances.
    pub known: usize,
    pub stored: Range<usize>,
    pub state: Range<usize>,
    pub is_deleted: bool,
    pub id: Id,
    /// The segments of `ce_source`.
    pub source: [&'a str; 3],
    pub updated_at: i64,
}

/// A notification: where it is in `Outcome::bytes`, and the values of its headers.
pub struct Notification<'a> {
    /// Index of the prepared event.
    pub cause: usize,
    pub key: Range<usize>,
    pub value: Range<usize>,
    pub id: Id,
    pub change: Change,
    /// The segments of `ce_source`.
    pub source: [&'a str; 3],
}

#[derive(Default)]
pub struct Outcome<'a> {
    pub bytes: Vec<u8>,
    /// In the order in which instances were first folded into.
    pub written: Vec<Written<'a>>,
    pub notifications: Vec<Notification<'a>>,
    /// Indexes of refused records, in their order.
    pub refused: Vec<(usize, Refusal<'a>)>,
    /// Folded events, by action.
    pub actions: [u64; Action::ALL.len()],
    /// Notifications, by view and change.
    pub changes: [[u64; Change::ALL.len()]; View::ALL.len()],
    /// Indexes of the prepared events with more than `ChunkOptions::max_published_bytes`; growing.
    pub unpublished: Vec<usize>,
    event_bytes: usize,
}

/// Check each event and find its instance; and return the index of one record for each instance, whose key is to load.
///
/// Keys of refused events are never loaded: an impossible id might be a name that the store uses for itself.
/// `records`: keys and offsets. `events`: None for records that could not be read.
pub fn prepare<'a>(
    records: impl Iterator<Item = (Option<&'a [u8]>, i64)>,
    events: Vec<Option<Event<'a>>>,
    rules: &Rules,
) -> (Vec<Prepared<'a>>, Vec<usize>) {
    let mut with_key: Vec<usize> = Vec::new();
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    let mut prepared = Vec::with_capacity(events.len());
    for (record, ((key, offset), event)) in records.zip(events).enumerate() {
        let Some(mut event) = event else { continue };
        let key = key.filter(|key| *key == event.instance_id.as_bytes());
        let known = accept(&mut event, rules).and(key.ok_or(Refusal::MisplacedKey)).map(|key| {
            *places.entry(key).or_insert_with(|| {
                with_key.push(record);
                with_key.len() - 1
            })
        });
        prepared.push(Prepared { record, offset, event, known });
    }
    (prepared, with_key)
}

/// Fold the events in their order. An instance is written once, after all of its events.
pub fn fold_all<'a>(events: &[Prepared<'a>], known: &mut [Known<'a>], options: ChunkOptions<'_>) -> Outcome<'a> {
    let mut outcome = Outcome::default();
    let mut folded: Vec<usize> = Vec::new();
    for (cause, each) in events.iter().enumerate() {
        let checked = each.known.and_then(|place| {
            check(known[place].instance.as_ref(), &each.event)?;
            if options.too_large.contains(&each.offset) { Err(Refusal::TooLarge) } else { Ok(place) }
        });
        let place = match checked {
            Ok(place) => place,
            Err(refusal) => {
                outcome.refused.push((each.record, refusal));
                continue;
            }
        };
        let known = &mut known[place];
        let before = known.entries.take().or_else(|| known.instance.as_ref().map(views)).unwrap_or_default();
        let (instance, changed) = fold(&mut known.instance, &each.event);
        outcome.event_bytes = 0;
        let notify = |key: Key<'a>, change, entry: &Entry<'a>| {
            if outcome.unpublished.last() != Some(&cause) {
                outcome.notify(cause, instance, &each.event, key, change, entry, options);
            }
        };
        if changed {
            let after = views(instance);
            notify_changes(&before, &after, notify);
            known.entries = Some(after);
        } else {
            republish(instance, &before, notify);
            known.entries = Some(before);
        }
        outcome.actions[each.event.action.number()] += 1;
        if !known.is_folded {
            known.is_folded = true;
            folded.push(place);
        }
    }
    for place in folded {
        if let Some(instance) = &known[place].instance {
            outcome.write(place, instance, known[place].events_lost, options);
        }
    }
    outcome
}

impl<'a> Outcome<'a> {
    /// The size of the largest stored instance or notification.
    pub fn largest(&self) -> usize {
        let written = self.written.iter().map(|each| each.stored.len());
        written.chain(self.notifications.iter().map(|each| each.value.len())).max().unwrap_or(0)
    }

    fn notify(
        &mut self,
        cause: usize,
        instance: &Instance<'a>,
        event: &Event<'a>,
        key: Key<'a>,
        change: Change,
        entry: &Entry<'a>,
        options: ChunkOptions<'_>,
    ) {
        let id = notification_id(options.rules.id_namespace, event.event_id, &key, change);
        let bytes = &mut self.bytes;
        let begin = bytes.len();
        bytes.extend_from_slice(instance.corp_id.as_bytes());
        bytes.push(b'/');
        bytes.extend_from_slice(key.user_id.as_bytes());
        let key_end = bytes.len();
        bytes.extend_from_slice(options.notification_frame);
        write_notification(bytes, &id, instance, event, &key, change, entry);
        self.event_bytes += bytes.len() - key_end;
        if self.event_bytes > options.max_published_bytes {
            bytes.truncate(begin);
            self.unpublished.push(cause);
            return;
        }
        self.changes[key.view.number()][change.number()] += 1;
        self.notifications.push(Notification {
            cause,
            key: begin..key_end,
            value: key_end..self.bytes.len(),
            id,
            change,
            source: [entry.source, instance.corp_id, entry.app_type],
        });
    }

    fn write(&mut self, known: usize, instance: &Instance<'a>, events_lost: bool, options: ChunkOptions<'_>) {
        let begin = self.bytes.len();
        let state = stored::write(&mut self.bytes, instance, events_lost, options);
        self.written.push(Written {
            known,
            stored: begin..self.bytes.len(),
            state,
            is_deleted: instance.lifecycle == Lifecycle::Deleted,
            id: state_id(options.rules.id_namespace, instance),
            source: [instance.source, instance.corp_id, instance.app_type.value],
            updated_at: instance.updated_at,
        });
    }
}
