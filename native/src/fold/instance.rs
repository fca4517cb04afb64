//! One process instance: its published state, and what the fold remembers of its events.
//!
//! Mirrors `TaskState` of `schemas/events.py` and `Marks` of `streams/fold/instance.py`. Texts are borrowed from the
//! stored form of the instance, and from the events that were folded into it since.

use serde::{Deserialize, Serialize};

use crate::fold::event::{Form, Lifecycle, Person, Status};

/// When a fact was stated, and by which event: the order in which the latest writer wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp<'a> {
    pub at: i64,
    pub event_id: &'a str,
}

/// A value of which the latest statement counts.
#[derive(Clone, Copy, Default)]
pub struct Fact<'a, T> {
    pub value: T,
    pub stated: Option<Stamp<'a>>,
}

impl<'a, T> Fact<'a, T> {
    /// Replace the value if this statement is later, and return whether it was.
    pub fn state(&mut self, value: T, stamp: Stamp<'a>) -> bool {
        let later = self.stated < Some(stamp);
        if later {
            *self = Self { value, stated: Some(stamp) };
        }
        later
    }
}

/// Who decided a task and how, by one event.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub struct Decision<'a> {
    pub at: i64,
    /// Otherwise it was cancelled.
    pub is_completed: bool,
    /// None: only the published state has the decision.
    pub event_id: Option<&'a str>,
    pub actor_id: Option<&'a str>,
    /// The sender did not report it: reconcile found it.
    pub is_recovered: bool,
    pub outcome: Option<&'a str>,
    pub remark: Option<&'a str>,
    pub decided_by: Option<&'a str>,
}

/// One approval step: its published fields, and what the fold remembers. The default has had no create yet.
#[derive(Default)]
pub struct Task<'a> {
    pub task_id: &'a str,
    pub assignee_ids: Vec<&'a str>,
    pub url: Fact<'a, Option<&'a str>>,
    pub created_at: Option<i64>,
    pub step_name: Fact<'a, Option<&'a str>>,
    pub step_id: Fact<'a, Option<&'a str>>,
    pub due_at: Fact<'a, Option<i64>>,
    /// The one that counts; none while the task is pending.
    pub decision: Option<Decision<'a>>,
    /// All other decisions, in their order.
    pub others: Vec<Decision<'a>>,
    /// Everyone whom an event named as its actor.
    pub actor_ids: Vec<&'a str>,
}

impl Task<'_> {
    pub fn status(&self) -> Status {
        match &self.decision {
            None => Status::Pending,
            Some(decision) if decision.is_completed => Status::Completed,
            Some(_) => Status::Cancelled,
        }
    }
}

/// A person who was copied in, and when first.
pub struct Copied<'a> {
    pub user_id: &'a str,
    pub at: i64,
}

#[derive(Default)]
pub struct Instance<'a> {
    pub instance_id: &'a str,
    pub corp_id: &'a str,
    pub source: &'a str,
    pub app_type: Fact<'a, &'a str>,
    pub title: Fact<'a, Option<&'a str>>,
    pub url: Fact<'a, Option<&'a str>>,
    pub originator: Fact<'a, Option<Person<'a>>>,
    pub process_code: Fact<'a, Option<&'a str>>,
    pub process_name: Fact<'a, Option<&'a str>>,
    pub form_uuid: Fact<'a, Option<&'a str>>,
    pub serial_no: Fact<'a, Option<&'a str>>,
    pub instance_status: Fact<'a, Option<&'a str>>,
    pub approved_result: Fact<'a, Option<&'a str>>,
    pub finished_at: Fact<'a, Option<i64>>,
    pub form: Fact<'a, Form<'a>>,
    pub lifecycle: Lifecycle,
    /// Ordered by id.
    pub tasks: Vec<Task<'a>>,
    /// Ordered by id.
    pub copied: Vec<Copied<'a>>,
    pub updated_at: i64,
    pub revision: i64,
    /// Everyone whom an event named as its originator.
    pub originator_ids: Vec<&'a str>,
    /// Assignees of creates without a task: pending on the instance until a task names them.
    pub assignee_ids: Vec<&'a str>,
    pub deleted_at: Option<i64>,
    /// The earliest time in any event, of the event or of the instance's creation.
    pub began_at: i64,
    /// When the edge received the first of its events.
    pub first_received_at: i64,
}

impl<'a> Instance<'a> {
    /// How it ended, if its sender reported that.
    pub fn result(&self) -> Option<&'a str> {
        let approved = self.approved_result.value.filter(|text| !text.is_empty());
        self.finished_at.value.and(approved.or(self.instance_status.value))
    }
}
