//! One chunk of a partition's records, folded into stored instances and notifications. Mirrors `streams/fold/python.py`.

use std::collections::HashMap;

use crate::avro::Read;
use crate::batches::Encoder;
use crate::cloudevents::{rfc3339, source};
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

/// The records of a chunk, and what happened in it.
#[derive(Default)]
pub struct Outcome<'a> {
    /// The stored forms of `written`, for the changelog and the store.
    pub changelog: Encoder,
    /// The states of `written`; tombstones where the instance is deleted.
    pub states: Encoder,
    pub notifications: Encoder,
    /// Instances that changed, as indexes among the known ones, in the order in which they were first folded into.
    pub written: Vec<usize>,
    /// The index of each notification's prepared event.
    pub causes: Vec<usize>,
    /// Indexes of refused records, in their order.
    pub refused: Vec<(usize, Refusal<'a>)>,
    /// Folded events, by action.
    pub actions: [u64; Action::ALL.len()],
    /// Notifications, by view and change.
    pub changes: [[u64; Change::ALL.len()]; View::ALL.len()],
    /// Indexes of the prepared events with more than `ChunkOptions::max_published_bytes`; growing.
    pub unpublished: Vec<usize>,
    /// The size of the largest stored instance or notification.
    pub largest: usize,
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

/// Fold the events in their order. An instance is written once, after all of its events. `keys`: of the known instances.
pub fn fold_all<'a>(
    events: &[Prepared<'a>],
    known: &mut [Known<'a>],
    keys: &[&[u8]],
    options: ChunkOptions<'_>,
) -> Outcome<'a> {
    let mut outcome = Outcome::default();
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
            outcome.written.push(place);
        }
    }
    for place in outcome.written.clone() {
        if let Some(instance) = &known[place].instance {
            outcome.write(keys[place], instance, known[place].events_lost, options);
        }
    }
    outcome
}

impl<'a> Outcome<'a> {
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
        let mut value = Vec::with_capacity(512);
        value.extend_from_slice(options.notification_frame);
        write_notification(&mut value, &id, instance, event, &key, change, entry);
        self.event_bytes += value.len();
        if self.event_bytes > options.max_published_bytes {
            self.unpublished.push(cause);
            return;
        }
        self.largest = self.largest.max(value.len());
        self.changes[key.view.number()][change.number()] += 1;
        self.causes.push(cause);
        let kind = &options.headers.notification_types[change.number()];
        let from = source([entry.source, instance.corp_id, entry.app_type]);
        let time = rfc3339(event.occurred_at);
        let headers = options.headers.of(&id, kind, &from, event.instance_id.as_bytes(), &time);
        let key = [instance.corp_id, "/", key.user_id].concat();
        self.notifications.push(Some(key.as_bytes()), Some(&value), &headers);
    }

    fn write(&mut self, key: &[u8], instance: &Instance<'a>, events_lost: bool, options: ChunkOptions<'_>) {
        let mut stored = Vec::with_capacity(1024);
        let state = stored::write(&mut stored, instance, events_lost, options);
        self.largest = self.largest.max(stored.len());
        self.changelog.push(Some(key), Some(&stored), &[]);
        let ChunkOptions { rules, headers: fixed, .. } = options;
        let is_deleted = instance.lifecycle == Lifecycle::Deleted;
        let kind = if is_deleted { &fixed.state_deleted } else { &fixed.state_changed };
        let id = state_id(rules.id_namespace, instance);
        let from = source([instance.source, instance.corp_id, instance.app_type.value]);
        let time = rfc3339(instance.updated_at.clamp(*rules.moments.start(), *rules.moments.end()));
        let headers = fixed.of(&id, kind, &from, key, &time);
        // A tombstone has no content type, which is the last header.
        let count = headers.len() - usize::from(is_deleted);
        self.states.push(Some(key), (!is_deleted).then(|| &stored[state]), &headers[..count]);
    }
}
