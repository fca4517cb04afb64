//! What is known of one process instance: its published state and the fold's marks in one struct.
//!
//! Mirrors `TaskState` of `schemas/events.py` and `Marks` of `streams/fold/instance.py`. Texts are borrowed: from the
//! stored form that the instance was read from, and from the events that were folded into it since.

use crate::fold::event::Person;
use crate::fold::forms::Form;
use crate::fold::words::{Lifecycle, Status};

/// When a fact was stated, and by which event: the order in which the latest writer wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp<'a> {
    pub at: i64,
    pub event_id: &'a str,
}

/// What the latest statement decides, and who made it.
#[derive(Clone, Copy, Default)]
pub struct Fact<'a, T> {
    pub value: T,
    pub stated: Option<Stamp<'a>>,
}

impl<'a, T> Fact<'a, T> {
    /// Take a statement if it is later than the one that holds; whether it was.
    pub fn state(&mut self, value: T, stamp: Stamp<'a>) -> bool {
        let later = self.stated < Some(stamp);
        if later {
            *self = Self { value, stated: Some(stamp) };
        }
        later
    }
}

/// What one event says of who decided a task, and how.
#[derive(Clone, Copy)]
pub struct Decision<'a> {
    pub at: i64,
    /// Else cancelled.
    pub is_completed: bool,
    /// None: only the published state told of it.
    pub event_id: Option<&'a str>,
    pub actor_id: Option<&'a str>,
    /// Its sender did not tell of it.
    pub is_recovered: bool,
    pub outcome: Option<&'a str>,
    pub remark: Option<&'a str>,
}

/// One approval step: its published entry and what the fold must remember beside it. At first its create has not come.
#[derive(Default)]
pub struct Task<'a> {
    pub task_id: &'a str,
    pub status: Status,
    pub assignee_ids: Vec<&'a str>,
    pub actor_id: Option<&'a str>,
    pub url: Fact<'a, Option<&'a str>>,
    pub created_at: Option<i64>,
    /// Of the decision that holds, as status and actor.
    pub decided_at: Option<i64>,
    pub decided_by: Option<&'a str>,
    pub is_recovered: bool,
    pub outcome: Option<&'a str>,
    pub remark: Option<&'a str>,
    /// The decisions that do not hold, in their order.
    pub others: Vec<Decision<'a>>,
    /// Everyone who was ever said to have decided it; one of them holds.
    pub actor_ids: Vec<&'a str>,
}

/// Somebody who was copied in, and when first.
pub struct Copied<'a> {
    pub user_id: &'a str,
    pub at: i64,
}

/// At first nothing was told of it.
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
    /// Everyone who was ever said to have started it.
    pub originator_ids: Vec<&'a str>,
    /// Assignees of creates that named no task: pending on the instance until a task names them.
    pub assignee_ids: Vec<&'a str>,
    pub deleted_at: Option<i64>,
    /// The earliest moment that any event stated, of itself or of its instance's creation.
    pub began_at: i64,
    /// When the edge received the first of its events.
    pub first_received_at: i64,
}

impl<'a> Instance<'a> {
    /// How it ended, as far as its sender said so.
    pub fn result(&self) -> Option<&'a str> {
        let approved = self.approved_result.value.filter(|text| !text.is_empty());
        self.finished_at.value.and(approved.or(self.instance_status.value))
    }
}
