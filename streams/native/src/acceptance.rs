//! What an event must be beside readable. Mirrors `streams/fold/acceptance.py`, which says why.

use crate::event::Event;
use crate::fold::Refusal;

const MAX_ID_CHARACTERS: usize = 128;

/// The years 1 to 9999.
pub const MOMENTS: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

/// How far a sender's clock may be ahead of ours.
const AHEAD_MS: i64 = 5 * 60 * 1000;

/// Make the event what it counts as, with no date that is not believed, where it can be folded, kept and told of.
pub fn accept<'a>(event: &mut Event<'a>) -> Result<(), Refusal<'a>> {
    let id = event.instance_id;
    if !(1..=MAX_ID_CHARACTERS).contains(&id.chars().count()) || id.chars().any(char::is_control) {
        return Err(Refusal::ImpossibleId);
    }
    check_moment("occurred_at", event.occurred_at)?;
    event.created_at.map_or(Ok(()), |at| check_moment("created_at", at))?;
    let occurred_at = believed(event.occurred_at, event.received_at);
    let created_at = event.created_at.map(|at| believed(at, event.received_at));
    if (occurred_at, created_at) != (event.occurred_at, event.created_at) {
        check_moment("received_at", event.received_at)?;
        (event.occurred_at, event.created_at) = (occurred_at, created_at);
    }
    Ok(())
}

fn check_moment<'a>(field: &'static str, at: i64) -> Result<(), Refusal<'a>> {
    if MOMENTS.contains(&at) { Ok(()) } else { Err(Refusal::ImpossibleMoment { field, at }) }
}

/// The moment that counts. Mirrors `schemas/moments.py`.
fn believed(at: i64, received_at: i64) -> i64 {
    if at > received_at.saturating_add(AHEAD_MS) { received_at } else { at }
}
