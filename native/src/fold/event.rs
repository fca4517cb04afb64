//! A task event, read up to the fields that the fold needs. Mirrors `TaskEvent` of `schemas/events.py`.

use crate::avro::{Read, Reader};
use crate::fold::forms::{Form, FormFields, read_field};
use crate::fold::words::Action;

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Person<'a> {
    pub user_id: &'a str,
    pub name: Option<&'a str>,
}

impl<'a> Person<'a> {
    pub fn read(reader: &mut Reader<'a>) -> Read<Self> {
        Ok(Self { user_id: reader.text()?, name: reader.optional_text()? })
    }
}

/// One callback that was verified and understood; its texts are borrowed from the record's value.
pub struct Event<'a> {
    pub event_id: &'a str,
    pub source: &'a str,
    pub action: Action,
    pub corp_id: &'a str,
    pub app_type: &'a str,
    pub instance_id: &'a str,
    pub task_id: Option<&'a str>,
    pub actor_id: Option<&'a str>,
    pub recipient_ids: Vec<&'a str>,
    pub originator: Option<Person<'a>>,
    pub title: Option<&'a str>,
    pub url: Option<&'a str>,
    pub process_code: Option<&'a str>,
    pub process_name: Option<&'a str>,
    pub form_uuid: Option<&'a str>,
    pub serial_no: Option<&'a str>,
    pub instance_status: Option<&'a str>,
    pub approved_result: Option<&'a str>,
    pub created_at: Option<i64>,
    pub finished_at: Option<i64>,
    pub occurred_at: i64,
    pub received_at: i64,
    pub outcome: Option<&'a str>,
    pub remark: Option<&'a str>,
    pub recovered_by: Option<&'a str>,
    /// Those of its form's values that are wanted.
    pub form: Form<'a>,
}

impl<'a> Event<'a> {
    /// The event in a record's value, where our own schema wrote it, under one of these frames, and in the usual way.
    pub fn read_own(value: &'a [u8], frames: &[Vec<u8>], wanted: &FormFields) -> Option<Self> {
        let body = frames.iter().find_map(|frame| value.strip_prefix(frame.as_slice()))?;
        Self::read(body, wanted).ok()
    }

    /// The event in an Avro body of our own schema, in the order of `schemas/avro/TaskEvent.avsc`.
    ///
    /// `form_data` and `raw_parameters` come last. The fold does not need the latter, nor the former but for what is wanted.
    pub fn read(body: &'a [u8], wanted: &FormFields) -> Read<Self> {
        let reader = &mut Reader::new(body);
        // In the schema's order, in which they are read.
        Ok(Self {
            event_id: reader.text()?,
            source: reader.text()?,
            action: reader.symbol(Action::ALL)?,
            corp_id: reader.text()?,
            app_type: reader.text()?,
            instance_id: reader.text()?,
            task_id: reader.optional_text()?,
            actor_id: reader.optional_text()?,
            recipient_ids: reader.texts()?,
            originator: reader.optional(Person::read)?,
            title: reader.optional_text()?,
            url: reader.optional_text()?,
            process_code: reader.optional_text()?,
            process_name: reader.optional_text()?,
            form_uuid: reader.optional_text()?,
            serial_no: reader.optional_text()?,
            instance_status: reader.optional_text()?,
            approved_result: reader.optional_text()?,
            created_at: reader.optional_long()?,
            finished_at: reader.optional_long()?,
            occurred_at: reader.long()?,
            received_at: reader.long()?,
            outcome: reader.optional_text()?,
            remark: reader.optional_text()?,
            recovered_by: reader.optional_text()?,
            form: if wanted.is_empty() { Form::new() } else { wanted.of(reader.array(read_field)?) },
        })
    }
}
