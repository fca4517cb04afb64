//! Which of a task's decisions holds. Mirrors `streams/fold/instance.py`, which says why.

use crate::fold::instance::{Decision, Task};
use crate::fold::words::Status;

/// Take one more decision; whether that changed anything.
pub fn decide<'a>(task: &mut Task<'a>, stated: Decision<'a>) -> bool {
    let held = held(task);
    let known = held.iter().chain(&task.others).find(|each| register(each) == register(&stated));
    if known.is_some_and(|known| weight(&stated) <= weight(known)) {
        return false;
    }
    let registers = &mut task.others;
    registers.extend(held);
    registers.retain(|each| register(each) != register(&stated));
    registers.push(stated);
    registers.sort_unstable_by(|one, other| order(one).cmp(&order(other)));
    let named = registers.iter().any(|each| each.is_completed && each.is_recovered);
    let at = registers.iter().rposition(|each| !(named && names_nobody(each)));
    // One is there, and where some give way, one that was recovered.
    let Some(at) = at else { return false };
    let held = registers.remove(at);
    task.status = if held.is_completed { Status::Completed } else { Status::Cancelled };
    task.actor_id = held.actor_id;
    task.decided_at = Some(held.at);
    task.decided_by = held.event_id;
    task.is_recovered = held.is_recovered;
    task.outcome = held.outcome;
    task.remark = held.remark;
    true
}

fn held<'a>(task: &Task<'a>) -> Option<Decision<'a>> {
    task.decided_at.map(|at| Decision {
        at,
        is_completed: task.status == Status::Completed,
        event_id: task.decided_by,
        actor_id: task.actor_id,
        is_recovered: task.is_recovered,
        outcome: task.outcome,
        remark: task.remark,
    })
}

fn register<'a>(decision: &Decision<'a>) -> (bool, Option<&'a str>) {
    (decision.is_completed, decision.actor_id.filter(|_| decision.is_completed))
}

/// Of one register the greatest holds.
fn weight<'a>(decision: &Decision<'a>) -> (bool, i64, &'a str) {
    (decision.is_completed && decision.is_recovered, decision.at, decision.event_id.unwrap_or(""))
}

/// No two registers are equal in it.
fn order<'a>(decision: &Decision<'a>) -> (i64, bool, &'a str, Option<&'a str>) {
    (decision.at, decision.is_completed, decision.event_id.unwrap_or(""), decision.actor_id)
}

fn names_nobody(decision: &Decision<'_>) -> bool {
    decision.is_completed && decision.actor_id.is_none() && !decision.is_recovered
}
