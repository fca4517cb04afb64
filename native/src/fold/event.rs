//! A task event, read up to the fields that the fold needs. Mirrors `TaskEvent` and the enums of `schemas/events.py`.

use std::collections::HashSet;

use crate::avro::{Read, Reader};

/// An enum whose members are in the order of the schema's symbols.
macro_rules! symbols {
    ($(#[$about:meta])* $name:ident { $($member:ident),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($member),+ }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$member),+];

            /// Its index among the schema's symbols.
            pub const fn number(self) -> usize {
                self as usize
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::ALL[0]
            }
        }
    };
}

symbols!(
    /// What happened. `Unknown` is an action of a newer schema.
    Action { Created, Completed, Cancelled, Deleted, Copied, Unknown }
);
symbols!(Lifecycle { Active, Deleted, Unknown });
symbols!(
    /// The status of a task; `Active` is the status of an instance before it has any task.
    Status { Pending, Completed, Cancelled, Active, Unknown }
);
symbols!(
    /// The four lists of a person.
    View { Created, Pending, Handled, Copied }
);
symbols!(Change { Added, Updated, Removed });

impl View {
    pub const fn text(self) -> &'static str {
        ["CREATED", "PENDING", "HANDLED", "COPIED"][self.number()]
    }
}

impl Change {
    pub const fn text(self) -> &'static str {
        ["ADDED", "UPDATED", "REMOVED"][self.number()]
    }
}

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

/// Names and values, in the order of the names.
pub type Form<'a> = Vec<(&'a str, Option<&'a str>)>;

/// An entry of an Avro map: maps are written as arrays of entries.
pub fn read_field<'a>(reader: &mut Reader<'a>) -> Read<(&'a str, Option<&'a str>)> {
    Ok((reader.text()?, reader.optional_text()?))
}

/// The fields of forms that states have. Mirrors `streams/fold/instance.py`.
pub struct FormFields {
    names: HashSet<String>,
    has_all: bool,
    bytes: usize,
}

impl FormFields {
    /// All fields where `every_field` is among the names; at most this many bytes of a form.
    pub fn new(names: HashSet<String>, every_field: &str, bytes: usize) -> Self {
        Self { has_all: names.contains(every_field), names, bytes }
    }

    /// The values of these fields, of which the last of each name counts. Values that do not fit are left out.
    fn of<'a>(&self, mut form: Form<'a>) -> Form<'a> {
        form.reverse();
        form.sort_by_key(|&(name, _)| name);
        form.dedup_by_key(|&mut (name, _)| name);
        let mut room = self.bytes;
        form.retain(|&(name, value)| {
            let size = name.len() + value.map_or(0, str::len);
            let fits = (self.has_all || self.names.contains(name)) && size <= room;
            if fits {
                room -= size;
            }
            fits
        });
        form
    }
}

/// Fields in the order of `schemas/avro/TaskEvent.avsc`, each with its type and its reader.
macro_rules! event {
    ($($field:ident: $type:ty = $read:expr,)+) => {
        /// One verified callback; its texts are borrowed from the record's value.
        pub struct Event<'a> {
            $(pub $field: $type,)+
            /// The values of the `FormFields`.
            pub form: Form<'a>,
        }

        impl<'a> Event<'a> {
            /// The event in a record's value that our own schema wrote, under one of these frames.
            pub fn read_own(value: &'a [u8], frames: &[Vec<u8>], fields: &FormFields) -> Option<Self> {
                let body = frames.iter().find_map(|frame| value.strip_prefix(frame.as_slice()))?;
                Self::read(body, fields).ok()
            }

            /// The event in an Avro body of our own schema.
            ///
            /// Reading ends before `form_data` where no fields are stored, and always before `raw_parameters`.
            pub fn read(body: &'a [u8], fields: &FormFields) -> Read<Self> {
                let mut reader = Reader::new(body);
                Ok(Self {
                    $($field: $read(&mut reader)?,)+
                    form: if fields.names.is_empty() { Form::new() } else { fields.of(reader.array(read_field)?) },
                })
            }
        }
    };
}

event! {
    event_id: &'a str = Reader::text,
    source: &'a str = Reader::text,
    action: Action = |reader: &mut Reader<'a>| reader.symbol(Action::ALL),
    corp_id: &'a str = Reader::text,
    app_type: &'a str = Reader::text,
    instance_id: &'a str = Reader::text,
    task_id: Option<&'a str> = Reader::optional_text,
    actor_id: Option<&'a str> = Reader::optional_text,
    recipient_ids: Vec<&'a str> = Reader::texts,
    originator: Option<Person<'a>> = |reader: &mut Reader<'a>| reader.optional(Person::read),
    title: Option<&'a str> = Reader::optional_text,
    url: Option<&'a str> = Reader::optional_text,
    process_code: Option<&'a str> = Reader::optional_text,
    process_name: Option<&'a str> = Reader::optional_text,
    form_uuid: Option<&'a str> = Reader::optional_text,
    serial_no: Option<&'a str> = Reader::optional_text,
    instance_status: Option<&'a str> = Reader::optional_text,
    approved_result: Option<&'a str> = Reader::optional_text,
    created_at: Option<i64> = Reader::optional_long,
    finished_at: Option<i64> = Reader::optional_long,
    occurred_at: i64 = Reader::long,
    received_at: i64 = Reader::long,
    outcome: Option<&'a str> = Reader::optional_text,
    remark: Option<&'a str> = Reader::optional_text,
    step_name: Option<&'a str> = Reader::optional_text,
    step_id: Option<&'a str> = Reader::optional_text,
    decided_by: Option<&'a str> = Reader::optional_text,
    due_at: Option<i64> = Reader::optional_long,
    recovered_by: Option<&'a str> = Reader::optional_text,
}
