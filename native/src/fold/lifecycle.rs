//! The fold: what an instance is after its events, in any order and with repetitions.
//!
//! Mirrors `streams/fold/instance.py`, which explains each rule. Here an instance is changed in place,
//! and each function returns whether it changed anything.

use crate::fold::event::{Action, Event, Lifecycle};
use crate::fold::instance::{Copied, Decision, Fact, Instance, Stamp, Task};
use crate::fold::rules::Refusal;

/// Check that the event may change this instance.
pub fn check<'a>(known: Option<&Instance<'a>>, event: &Event<'a>) -> Result<(), Refusal<'a>> {
    if event.action == Action::Unknown {
        return Err(Refusal::UnknownAction);
    }
    match known {
        Some(instance) if instance.corp_id != event.corp_id => {
            Err(Refusal::AnotherCorp { ours: instance.corp_id, theirs: event.corp_id })
        }
        Some(instance) if is_of_other_app(instance, event) => {
            let theirs = (event.app_type, event.source);
            let ours = (instance.app_type.value, instance.source);
            if (event.received_at, theirs) > (instance.first_received_at, ours) {
                Err(Refusal::AnotherApp { ours, theirs })
            } else {
                Ok(())
            }
        }
        _ => Ok(()),
    }
}

fn is_of_other_app(instance: &Instance<'_>, event: &Event<'_>) -> bool {
    instance.app_type.value != event.app_type || instance.source != event.source
}

/// Fold a checked event into the instance, and return whether that changed anything.
///
/// The first event creates the instance. So does an event of another app, which was received before all events of this.
pub fn fold<'i, 'a>(known: &'i mut Option<Instance<'a>>, event: &Event<'a>) -> (&'i Instance<'a>, bool) {
    let other = known.as_ref().filter(|instance| is_of_other_app(instance, event));
    if let Some(revision) = other.map(|instance| instance.revision) {
        *known = Some(Instance { revision, ..new_instance(event) });
    }
    let instance = known.get_or_insert_with(|| new_instance(event));
    let changed = with_facts(instance, event)
        | match event.action {
            Action::Created => created(instance, event),
            Action::Completed | Action::Cancelled => decided(instance, event),
            Action::Copied => copy(&mut instance.copied, &event.recipient_ids, event.occurred_at),
            Action::Deleted => deleted(instance, event),
            Action::Unknown => false, // refused by `check`
        };
    let changed = changed || instance.revision == 0;
    if changed {
        instance.revision = instance.revision.saturating_add(1);
    }
    (instance, changed)
}

fn new_instance<'a>(event: &Event<'a>) -> Instance<'a> {
    Instance {
        instance_id: event.instance_id,
        corp_id: event.corp_id,
        source: event.source,
        app_type: Fact { value: event.app_type, stated: None },
        updated_at: event.occurred_at,
        began_at: i64::MAX,
        first_received_at: event.received_at,
        ..Instance::default()
    }
}

fn stamp<'a>(event: &Event<'a>) -> Stamp<'a> {
    Stamp { at: event.occurred_at, event_id: event.event_id }
}

fn with_facts<'a>(instance: &mut Instance<'a>, event: &Event<'a>) -> bool {
    let stamp = stamp(event);
    let mut changed = instance.app_type.state(event.app_type, stamp);
    macro_rules! state {
        ($($fact:ident)+) => { $(changed |= event.$fact.is_some() && instance.$fact.state(event.$fact, stamp);)+ };
    }
    state!(title url originator process_code process_name form_uuid serial_no instance_status approved_result finished_at);
    changed |= event.originator.is_some_and(|person| unite(&mut instance.originator_ids, &[person.user_id]));
    changed |= !event.form.is_empty() && instance.form.state(event.form.clone(), stamp);
    let began_at = event.created_at.map_or(event.occurred_at, |at| at.min(event.occurred_at));
    changed |= replace(&mut instance.began_at, |known| known.min(began_at));
    changed |= replace(&mut instance.first_received_at, |known| known.min(event.received_at));
    changed | replace(&mut instance.updated_at, |known| known.max(event.occurred_at))
}

fn created<'a>(instance: &mut Instance<'a>, event: &Event<'a>) -> bool {
    let Some(task_id) = event.task_id else {
        return unite(&mut instance.assignee_ids, &event.recipient_ids);
    };
    let (task, mut changed) = task(instance, task_id);
    changed |= unite(&mut task.assignee_ids, &event.recipient_ids);
    let created_at = event.created_at.unwrap_or(event.occurred_at);
    if task.created_at.is_none_or(|known| created_at < known) {
        task.created_at = Some(created_at);
        changed = true;
    }
    changed |= event.url.is_some() && task.url.state(event.url, stamp(event));
    changed | with_step(task, event)
}

fn with_step<'a>(task: &mut Task<'a>, event: &Event<'a>) -> bool {
    let stamp = stamp(event);
    let mut changed = event.step_name.is_some() && task.step_name.state(event.step_name, stamp);
    changed |= event.step_id.is_some() && task.step_id.state(event.step_id, stamp);
    changed | (event.due_at.is_some() && task.due_at.state(event.due_at, stamp))
}

fn decided<'a>(instance: &mut Instance<'a>, event: &Event<'a>) -> bool {
    let Some(task_id) = event.task_id else {
        return false;
    };
    let (task, mut changed) = task(instance, task_id);
    changed |= decide(
        task,
        Decision {
            at: event.occurred_at,
            is_completed: event.action == Action::Completed,
            event_id: Some(event.event_id),
            actor_id: event.actor_id,
            is_recovered: event.recovered_by.is_some(),
            outcome: event.outcome,
            remark: event.remark,
            decided_by: event.decided_by,
        },
    );
    changed |= with_step(task, event);
    changed | unite(&mut task.actor_ids, event.actor_id.as_slice())
}

/// Add a decision, and choose the one that counts.
fn decide<'a>(task: &mut Task<'a>, stated: Decision<'a>) -> bool {
    let known = task.decision.iter().chain(&task.others).find(|each| register(each) == register(&stated));
    if known.is_some_and(|known| weight(&stated) <= weight(known)) {
        return false;
    }
    let registers = &mut task.others;
    registers.extend(task.decision.take());
    registers.retain(|each| register(each) != register(&stated));
    registers.push(stated);
    registers.sort_unstable_by(|one, other| order(one).cmp(&order(other)));
    let named = registers.iter().any(|each| each.is_completed && each.is_recovered);
    let at = registers.iter().rposition(|each| !(named && names_nobody(each)));
    // At least one is left: where some are passed over, one was recovered.
    task.decision = at.map(|at| registers.remove(at));
    true
}

fn register<'a>(decision: &Decision<'a>) -> (bool, Option<&'a str>) {
    (decision.is_completed, decision.actor_id.filter(|_| decision.is_completed))
}

/// Of each register, the decision of the greatest weight is stored.
fn weight<'a>(decision: &Decision<'a>) -> (bool, i64, &'a str) {
    (decision.is_completed && decision.is_recovered, decision.at, decision.event_id.unwrap_or(""))
}

/// Total: no two registers are equal in it.
fn order<'a>(decision: &Decision<'a>) -> (i64, bool, &'a str, Option<&'a str>) {
    (decision.at, decision.is_completed, decision.event_id.unwrap_or(""), decision.actor_id)
}

fn names_nobody(decision: &Decision<'_>) -> bool {
    decision.is_completed && decision.actor_id.is_none() && !decision.is_recovered
}

/// Add people who were copied in, ordered by id, each with the first time.
fn copy<'a>(known: &mut Vec<Copied<'a>>, user_ids: &[&'a str], at: i64) -> bool {
    let (before, mut changed) = (known.len(), false);
    for &user_id in user_ids {
        match known[..before].binary_search_by_key(&user_id, |each| each.user_id) {
            Ok(place) if known[place].at <= at => continue,
            Ok(place) => known[place].at = at,
            Err(_) => known.push(Copied { user_id, at }),
        }
        changed = true;
    }
    if known.len() > before {
        known.sort_unstable_by_key(|each| each.user_id);
        known.dedup_by_key(|each| each.user_id);
    }
    changed
}

fn deleted(instance: &mut Instance<'_>, event: &Event<'_>) -> bool {
    let known = (instance.lifecycle, instance.deleted_at);
    instance.lifecycle = Lifecycle::Deleted;
    instance.deleted_at = instance.deleted_at.max(Some(event.occurred_at));
    known != (instance.lifecycle, instance.deleted_at)
}

/// The task, created as a shell where it is new; and whether it is new.
fn task<'i, 'a>(instance: &'i mut Instance<'a>, task_id: &'a str) -> (&'i mut Task<'a>, bool) {
    let found = instance.tasks.binary_search_by_key(&task_id, |each| each.task_id);
    if let Err(at) = found {
        instance.tasks.insert(at, Task { task_id, ..Task::default() });
    }
    let (Ok(at) | Err(at)) = found;
    (&mut instance.tasks[at], found.is_err())
}

/// Add ids to an ordered set.
fn unite<'a>(ids: &mut Vec<&'a str>, more: &[&'a str]) -> bool {
    let known = ids.len();
    for each in more {
        if ids[..known].binary_search(each).is_err() {
            ids.push(each);
        }
    }
    let changed = ids.len() > known;
    if changed {
        ids.sort_unstable();
        ids.dedup();
    }
    changed
}

fn replace(known: &mut i64, by: impl FnOnce(i64) -> i64) -> bool {
    let before = *known;
    *known = by(before);
    *known != before
}

#[cfg(test)]
#[path = "../../../tests/native/fold_people.rs"]
mod tests;
