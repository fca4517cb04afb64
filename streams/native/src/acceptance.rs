//! What an event must be beside readable. Mirrors `streams/fold/acceptance.py`, which says why.

use crate::event::Event;
use crate::fold::Refusal;

const MAX_ID_CHARACTERS: usize = 128;

/// The years 1 to 9999.
const MOMENTS: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

/// Whether the event can be folded, kept and told of.
pub fn accept<'a>(event: &Event<'a>) -> Result<(), Refusal<'a>> {
    let id = event.instance_id;
    if !(1..=MAX_ID_CHARACTERS).contains(&id.chars().count()) || id.chars().any(char::is_control) {
        return Err(Refusal::ImpossibleId);
    }
    let moments = [("occurred_at", Some(event.occurred_at)), ("created_at", event.created_at)];
    for (field, moment) in moments {
        if let Some(at) = moment.filter(|at| !MOMENTS.contains(at)) {
            return Err(Refusal::ImpossibleMoment { field, at });
        }
    }
    Ok(())
}
