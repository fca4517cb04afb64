//! What both implementations go by. The figures are Python's: it hands them over.

use std::collections::HashSet;
use std::ops::RangeInclusive;

/// The same for every chunk.
pub struct Rules {
    /// At most so many in an instance's id.
    pub id_characters: usize,
    /// Moments that have a text.
    pub moments: RangeInclusive<i64>,
    /// How far a sender's clock may be ahead of ours.
    pub ahead_ms: i64,
    /// At most so many are remembered of an instance.
    pub offsets: usize,
    /// At most so many of a form's values stand in a state.
    pub form_bytes: usize,
    /// Stands for all fields of forms.
    pub every_field: String,
    /// Of the UUIDs, version 5, that are made.
    pub id_namespace: [u8; 16],
}

/// What one chunk is folded with.
#[derive(Clone, Copy)]
pub struct Terms<'t> {
    pub rules: &'t Rules,
    /// What stands in front of each encoded record: a zero byte and its schema's id.
    pub state_frame: &'t [u8],
    pub notification_frame: &'t [u8],
    pub now_ms: i64,
    /// Offsets of records that their instance cannot take.
    pub too_large: &'t HashSet<i64>,
    /// Of the notifications of one event, all together.
    pub told_bytes: usize,
}
