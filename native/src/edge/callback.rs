//! What Yida's callbacks say: the names of their fields. Mirrors `edge/callbacks.py`.

use super::fields::Told;
use super::json::{self, Members};
use super::parameters::Parameters;

/// In the order of the schema's symbols.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Created,
    Completed,
    Cancelled,
    Deleted,
    Copied,
}

impl Action {
    pub fn of(wire_action: &str) -> Option<Self> {
        Some(match wire_action {
            "create" => Self::Created,
            "complete" => Self::Completed,
            "cancel" => Self::Cancelled,
            "delete" => Self::Deleted,
            "cc" => Self::Copied,
            _ => return None,
        })
    }

    pub fn is_of_one_task(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled)
    }

    pub fn describes(self) -> bool {
        matches!(self, Self::Created | Self::Copied)
    }

    pub fn recipients(self) -> &'static [&'static str] {
        const COPIED_IN: &[&str] = &["actionerId", "actionerIds", "actualWorkId", "ccUserIds"];
        if self == Self::Copied { COPIED_IN } else { &COPIED_IN[..2] }
    }
}

pub const TASK_INSTANCE: [&str; 3] = ["formInstanceId", "formInstId", "processInstanceId"];
pub const URLS: [&str; 5] = ["url", "taskUrl", "detailUrl", "approveUrl", "formUrl"];
const DELETE_KEYS: [&str; 5] = ["appType", "corpId", "formInstId", "dateTime", "sign"];
const FOREIGN_SIGNATURE: &str = "__signature";

/// The parameters, and the members of `task` where there is one.
pub struct Callback<'a> {
    pub parameters: &'a Parameters<'a>,
    described: Members<'a>,
}

impl<'a> Callback<'a> {
    pub fn of(action: Action, parameters: &'a Parameters<'a>) -> Option<Self> {
        let is_ours = |key: &str| match action {
            Action::Deleted => DELETE_KEYS.contains(&key),
            _ => key != FOREIGN_SIGNATURE,
        };
        parameters.pairs.iter().all(|(key, _)| is_ours(key)).then_some(())?;
        let task = parameters.get("task").filter(|_| action.describes());
        let described = match Told::text(task) {
            Told::Text(task) => json::members(task)?,
            _ if action == Action::Created => return None,
            _ => Vec::new(),
        };
        Some(Self { parameters, described })
    }

    pub fn described(&self, key: &str) -> Told<'_> {
        self.described.iter().find(|(name, _)| name == key).map_or(Told::Nothing, |(_, value)| Told::value(value))
    }

    pub fn beside(&self, key: &str) -> Told<'_> {
        Told::text(self.parameters.get(key))
    }

    /// What is described, or else what stands beside it.
    pub fn told(&self, key: &str) -> Told<'_> {
        self.described(key).or(|| self.beside(key))
    }

    /// What both places say, where neither says anything else.
    pub fn same(&self, key: &str) -> Option<Option<&str>> {
        match (self.beside(key).plain()?, self.described(key).plain()?) {
            (Some(one), Some(other)) if one != other => None,
            (one, other) => Some(one.or(other)),
        }
    }
}
