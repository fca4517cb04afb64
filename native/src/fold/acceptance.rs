//! What an event must be beside readable. Mirrors `streams/fold/rejections.py`, which says why.

use crate::fold::event::Event;
use crate::fold::refusal::Refusal;
use crate::fold::rules::Rules;

/// Make the event what it counts as, with no date that is not believed, where it can be folded, kept and told of.
pub fn accept<'a>(event: &mut Event<'a>, rules: &Rules) -> Result<(), Refusal<'a>> {
    let id = event.instance_id;
    if !(1..=rules.id_characters).contains(&id.chars().count()) || id.chars().any(char::is_control) {
        return Err(Refusal::ImpossibleId);
    }
    let check = |field, at| {
        if rules.moments.contains(&at) { Ok(()) } else { Err(Refusal::ImpossibleMoment { field, at }) }
    };
    // The moment that counts. Mirrors `effective_time` of `schemas/events.py`.
    let latest = event.received_at.saturating_add(rules.ahead_ms);
    let believed = |at| if at > latest { event.received_at } else { at };
    check("occurred_at", event.occurred_at)?;
    event.created_at.map_or(Ok(()), |at| check("created_at", at))?;
    event.finished_at.map_or(Ok(()), |at| check("finished_at", at))?;
    let stated = (event.occurred_at, event.created_at, event.finished_at);
    let counts = (believed(stated.0), stated.1.map(believed), stated.2.map(believed));
    if counts != stated {
        check("received_at", event.received_at)?;
        (event.occurred_at, event.created_at, event.finished_at) = counts;
    }
    Ok(())
}
