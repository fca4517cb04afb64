//! The limits of a fold, and why an event is refused. Python defines the limits and the texts, in `streams/fold`.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use crate::fold::event::Event;
use crate::fold::published::FixedHeaders;

/// The same for every chunk.
pub struct Rules {
    /// The most characters of an instance's id.
    pub id_characters: usize,
    /// Moments that have a text.
    pub moments: RangeInclusive<i64>,
    /// How far a sender's clock may be ahead of ours.
    pub ahead_ms: i64,
    /// The most bytes of a form's values in a state.
    pub form_bytes: usize,
    /// The name that means all fields of forms.
    pub every_field: String,
    /// The namespace of our UUIDs of version 5.
    pub id_namespace: [u8; 16],
}

/// The parameters of one chunk.
#[derive(Clone, Copy)]
pub struct ChunkOptions<'t> {
    pub rules: &'t Rules,
    pub headers: &'t FixedHeaders,
    /// Before each encoded record: a zero byte and the id of its schema.
    pub state_frame: &'t [u8],
    pub notification_frame: &'t [u8],
    pub now_ms: i64,
    /// Offsets of events that would make their instance too large.
    pub too_large: &'t HashSet<i64>,
    /// The most bytes of all notifications of one event.
    pub max_published_bytes: usize,
}

/// An app's name, and its source.
pub type App<'a> = (&'a str, &'a str);

/// Why an event changes nothing and its record belongs in the dead-letter topic: `Refusal` of Python has the texts.
#[derive(Clone, Copy)]
pub enum Refusal<'a> {
    ImpossibleId,
    ImpossibleMoment { field: &'static str, at: i64 },
    MisplacedKey,
    UnknownAction,
    AnotherCorp { ours: &'a str, theirs: &'a str },
    AnotherApp { ours: App<'a>, theirs: App<'a> },
    TooLarge,
}

impl Refusal<'_> {
    /// Its index in Python's enum, and the arguments of its text.
    pub fn code(&self) -> (usize, Vec<String>) {
        match self {
            Self::ImpossibleId => (0, vec![]),
            Self::ImpossibleMoment { field, at } => (1, vec![(*field).into(), at.to_string()]),
            Self::MisplacedKey => (2, vec![]),
            Self::UnknownAction => (3, vec![]),
            Self::AnotherCorp { ours, theirs } => (4, vec![(*ours).into(), (*theirs).into()]),
            Self::AnotherApp { ours, theirs } => {
                (5, [ours, theirs].map(|(app_type, source)| format!("{source}/{app_type}")).into())
            }
            Self::TooLarge => (6, vec![]),
        }
    }
}

/// Check that an event can be folded, stored and published, and replace times that are too far in the future.
pub fn accept<'a>(event: &mut Event<'a>, rules: &Rules) -> Result<(), Refusal<'a>> {
    let id = event.instance_id;
    if !(1..=rules.id_characters).contains(&id.chars().count()) || id.chars().any(char::is_control) {
        return Err(Refusal::ImpossibleId);
    }
    let check = |field, at| {
        if rules.moments.contains(&at) { Ok(()) } else { Err(Refusal::ImpossibleMoment { field, at }) }
    };
    // Mirrors `effective_time` of `schemas/events.py`.
    let latest = event.received_at.saturating_add(rules.ahead_ms);
    let believed = |at| if at > latest { event.received_at } else { at };
    check("occurred_at", event.occurred_at)?;
    event.created_at.map_or(Ok(()), |at| check("created_at", at))?;
    event.finished_at.map_or(Ok(()), |at| check("finished_at", at))?;
    event.due_at.map_or(Ok(()), |at| check("due_at", at))?;
    let stated = (event.occurred_at, event.created_at, event.finished_at);
    let counted = (believed(stated.0), stated.1.map(believed), stated.2.map(believed));
    if counted != stated {
        check("received_at", event.received_at)?;
        (event.occurred_at, event.created_at, event.finished_at) = counted;
    }
    Ok(())
}
