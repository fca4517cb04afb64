//! The stored form of an instance, in the store and the changelog. Mirrors `streams/fold/stored_instance.py`.

use std::ops::Range;

use rmp_serde::Deserializer;
use rmp_serde::decode::Error;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::avro::{Read, Reader, Unreadable, Writer};
use crate::fold::event::{Lifecycle, Person, Status, read_field};
use crate::fold::instance::{Copied, Decision, Fact, Instance, Stamp, Task};
use crate::fold::rules::ChunkOptions;
use crate::fold::views::{is_finished, unnamed_assignees};

const VERSION: u8 = 3;
pub const HEAD_BYTES: usize = 16;

/// Between the state and the marks, where some events of the instance are not on the topic. An older version wrote the
/// offsets of the last events there, which begin like this in that case only.
const EVENTS_LOST: [u8; 2] = [0, 0];

/// The stored instance, whose state has the frame of our own schema; and whether some of its events are lost.
pub fn read<'a>(stored: &'a [u8], state_frame: &[u8]) -> Read<(Instance<'a>, bool)> {
    let (head, rest) = stored.split_first_chunk::<HEAD_BYTES>().ok_or(Unreadable)?;
    if head[0] != VERSION {
        return Err(Unreadable);
    }
    let state_length = u32::from_be_bytes([head[10], head[11], head[12], head[13]]);
    let state_length = usize::try_from(state_length).map_err(|_| Unreadable)?;
    let between_length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    let (state, rest) = rest.split_at_checked(state_length).ok_or(Unreadable)?;
    let (between, marks) = rest.split_at_checked(between_length).ok_or(Unreadable)?;
    let body = state.strip_prefix(state_frame).ok_or(Unreadable)?;
    let mut instance = read_state(body)?;
    read_marks(marks, &mut instance)?;
    Ok((instance, between.starts_with(&EVENTS_LOST)))
}

/// Append the stored form of an instance, and return where in `out` its framed state is.
pub fn write(out: &mut Vec<u8>, instance: &Instance<'_>, events_lost: bool, options: ChunkOptions<'_>) -> Range<usize> {
    let begin = out.len();
    let unnamed = unnamed_assignees(instance);
    let kind = match instance.lifecycle {
        Lifecycle::Deleted => b'D',
        _ if is_finished(instance, &unnamed) => b'F',
        _ => b'L',
    };
    out.extend([VERSION, kind]);
    out.extend(options.now_ms.to_be_bytes());
    out.extend([0; 6]); // the two lengths, once they are known
    let state_begin = out.len();
    out.extend_from_slice(options.state_frame);
    write_state(out, instance, &unnamed);
    let state_end = out.len();
    // It fits, because a record is bounded.
    out[begin + 10..begin + 14].copy_from_slice(&((state_end - state_begin) as u32).to_be_bytes());
    if events_lost {
        out[begin + 15] = EVENTS_LOST.len() as u8;
        out.extend(EVENTS_LOST);
    }
    write_marks(out, instance);
    state_begin..state_end
}

/// The published state, in the order of `schemas/avro/TaskState.avsc`. Its last two fields follow from the marks.
fn read_state(body: &[u8]) -> Read<Instance<'_>> {
    let reader = &mut Reader::new(body);
    let mut instance = Instance {
        instance_id: reader.text()?,
        corp_id: reader.text()?,
        app_type: unstated(reader.text()?),
        title: unstated(reader.optional_text()?),
        url: unstated(reader.optional_text()?),
        originator: unstated(reader.optional(Person::read)?),
        process_code: unstated(reader.optional_text()?),
        process_name: unstated(reader.optional_text()?),
        lifecycle: reader.symbol(Lifecycle::ALL)?,
        tasks: reader.array(read_task)?,
        copied: reader.array(read_copied)?,
        updated_at: reader.long()?,
        revision: reader.long()?,
        ..Instance::default()
    };
    instance.source = reader.text()?;
    instance.form_uuid.value = reader.optional_text()?;
    instance.serial_no.value = reader.optional_text()?;
    instance.instance_status.value = reader.optional_text()?;
    instance.approved_result.value = reader.optional_text()?;
    instance.finished_at.value = reader.optional_long()?;
    let _result = reader.optional_text()?;
    instance.form.value = reader.array(read_field)?;
    let _began_at = reader.optional_long()?;
    let _unnamed = reader.texts()?;
    if reader.is_at_end() { Ok(instance) } else { Err(Unreadable) }
}

fn unstated<'a, T>(value: T) -> Fact<'a, T> {
    Fact { value, stated: None }
}

fn read_task<'a>(reader: &mut Reader<'a>) -> Read<Task<'a>> {
    let (task_id, status) = (reader.text()?, reader.symbol(Status::ALL)?);
    let (assignee_ids, actor_id) = (reader.texts()?, reader.optional_text()?);
    let (url, created_at, decided_at) = (reader.optional_text()?, reader.optional_long()?, reader.optional_long()?);
    let (outcome, remark) = (reader.optional_text()?, reader.optional_text()?);
    let (step_name, step_id) = (reader.optional_text()?, reader.optional_text()?);
    let (decided_by, due_at) = (reader.optional_text()?, reader.optional_long()?);
    let is_completed = status == Status::Completed;
    let of = |at| Decision { at, is_completed, actor_id, outcome, remark, decided_by, ..Decision::default() };
    Ok(Task {
        task_id,
        assignee_ids,
        url: unstated(url),
        created_at,
        step_name: unstated(step_name),
        step_id: unstated(step_id),
        due_at: unstated(due_at),
        decision: decided_at.map(of),
        ..Task::default()
    })
}

fn read_copied<'a>(reader: &mut Reader<'a>) -> Read<Copied<'a>> {
    Ok(Copied { user_id: reader.text()?, at: reader.long()? })
}

fn write_state(out: &mut Vec<u8>, instance: &Instance<'_>, unnamed: &[&str]) {
    out.text(instance.instance_id);
    out.text(instance.corp_id);
    out.text(instance.app_type.value);
    out.optional_text(instance.title.value);
    out.optional_text(instance.url.value);
    write_person(out, instance.originator.value);
    out.optional_text(instance.process_code.value);
    out.optional_text(instance.process_name.value);
    out.count(instance.lifecycle.number());
    out.array(&instance.tasks, write_task);
    out.array(&instance.copied, |out, each| {
        out.text(each.user_id);
        out.long(each.at);
    });
    out.long(instance.updated_at);
    out.long(instance.revision);
    out.text(instance.source);
    out.optional_text(instance.form_uuid.value);
    out.optional_text(instance.serial_no.value);
    out.optional_text(instance.instance_status.value);
    out.optional_text(instance.approved_result.value);
    out.optional_long(instance.finished_at.value);
    out.optional_text(instance.result());
    out.array(&instance.form.value, |out, (name, value)| {
        out.text(name);
        out.optional_text(*value);
    });
    out.optional_long(Some(instance.began_at));
    out.array(unnamed, |out, each| out.text(each));
}

fn write_task(out: &mut Vec<u8>, task: &Task<'_>) {
    let decision = task.decision.unwrap_or_default();
    out.text(task.task_id);
    out.count(task.status().number());
    out.array(&task.assignee_ids, |out, each| out.text(each));
    out.optional_text(decision.actor_id);
    out.optional_text(task.url.value);
    out.optional_long(task.created_at);
    out.optional_long(task.decision.map(|decision| decision.at));
    out.optional_text(decision.outcome);
    out.optional_text(decision.remark);
    out.optional_text(task.step_name.value);
    out.optional_text(task.step_id.value);
    out.optional_text(decision.decided_by);
    out.optional_long(task.due_at.value);
}

/// A person or null, as in events, states and notifications.
pub fn write_person(out: &mut Vec<u8>, person: Option<Person<'_>>) {
    out.optional(person, |out, person| {
        out.text(person.user_id);
        out.optional_text(person.name);
    });
}

/// `Marks` of Python as MessagePack. Older versions wrote fewer fields: Python reads those.
///
/// Facts, tasks, `originator_ids`, `assignee_ids`, `deleted_at`, `began_at`, `first_received_at`, details.
type Marks<'a> = (Stamps<'a>, Vec<TaskMarks<'a>>, Vec<&'a str>, Vec<&'a str>, Option<i64>, i64, i64, Stamps<'a>);
type Stamps<'a> = [Option<Stamp<'a>>; 6];
/// `url`, `decision_id`, `actor_ids`, `is_recovered`, others, step.
type TaskMarks<'a> = (Stated<'a>, Option<&'a str>, Vec<&'a str>, bool, Vec<Decision<'a>>, Option<StepMarks<'a>>);
/// `step_name`, `step_id`, `due_at`: where any is stated.
type StepMarks<'a> = (Stated<'a>, Stated<'a>, Stated<'a>);
type Stated<'a> = Option<Stamp<'a>>;

fn read_marks<'a>(packed: &'a [u8], instance: &mut Instance<'a>) -> Read<()> {
    let mut reader = Deserializer::from_read_ref(packed);
    let (facts, tasks, originators, assignees, deleted_at, began_at, first_received_at, details) =
        Marks::deserialize(&mut reader).map_err(|_| Unreadable)?;
    let is_at_end = matches!(IgnoredAny::deserialize(&mut reader), Err(Error::InvalidMarkerRead(_)));
    if !is_at_end || tasks.len() != instance.tasks.len() {
        return Err(Unreadable);
    }
    [
        instance.app_type.stated,
        instance.title.stated,
        instance.url.stated,
        instance.originator.stated,
        instance.process_code.stated,
        instance.process_name.stated,
    ] = facts;
    for (task, marks) in instance.tasks.iter_mut().zip(tasks) {
        let (event_id, is_recovered, step);
        (task.url.stated, event_id, task.actor_ids, is_recovered, task.others, step) = marks;
        task.decision = task.decision.map(|decision| Decision { event_id, is_recovered, ..decision });
        (task.step_name.stated, task.step_id.stated, task.due_at.stated) = step.unwrap_or_default();
    }
    (instance.originator_ids, instance.assignee_ids) = (originators, assignees);
    (instance.deleted_at, instance.began_at, instance.first_received_at) = (deleted_at, began_at, first_received_at);
    [
        instance.form_uuid.stated,
        instance.serial_no.stated,
        instance.instance_status.stated,
        instance.approved_result.stated,
        instance.finished_at.stated,
        instance.form.stated,
    ] = details;
    Ok(())
}

fn write_marks(out: &mut Vec<u8>, instance: &Instance<'_>) {
    let facts = [
        instance.app_type.stated,
        instance.title.stated,
        instance.url.stated,
        instance.originator.stated,
        instance.process_code.stated,
        instance.process_name.stated,
    ];
    let details = [
        instance.form_uuid.stated,
        instance.serial_no.stated,
        instance.instance_status.stated,
        instance.approved_result.stated,
        instance.finished_at.stated,
        instance.form.stated,
    ];
    let tasks = instance.tasks.iter();
    let tasks = tasks.map(|task| {
        let step = (task.step_name.stated, task.step_id.stated, task.due_at.stated);
        let step = (step != StepMarks::default()).then_some(step);
        let Decision { event_id, is_recovered, .. } = task.decision.unwrap_or_default();
        (task.url.stated, event_id, &task.actor_ids, is_recovered, &task.others, step)
    });
    let marks = (
        facts,
        tasks.collect::<Vec<_>>(),
        &instance.originator_ids,
        &instance.assignee_ids,
        instance.deleted_at,
        instance.began_at,
        instance.first_received_at,
        details,
    );
    rmp_serde::encode::write(out, &marks).expect("a vector accepts all bytes");
}
