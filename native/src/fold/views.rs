//! The entries that people see of an instance, and the notifications of a change. Mirrors `views` of
//! `schemas/views.py`, and `streams/fold/views.py`.

use crate::fold::event::{Change, Lifecycle, Person, Status, View};
use crate::fold::instance::{Decision, Instance, Task};

/// Names one entry. `task_id` is None where the entry is about the whole instance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key<'a> {
    pub user_id: &'a str,
    pub view: View,
    pub task_id: Option<&'a str>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Entry<'a> {
    pub title: Option<&'a str>,
    pub url: Option<&'a str>,
    pub app_type: &'a str,
    pub originator: Option<Person<'a>>,
    pub actor_id: Option<&'a str>,
    pub status: Status,
    pub process_name: Option<&'a str>,
    pub source: &'a str,
    /// When the entry came into the view, and when its task or instance last changed: functions of the state.
    pub entered_at: i64,
    pub updated_at: i64,
    /// How the task was decided, or how the instance ended.
    pub outcome: Option<&'a str>,
    pub remark: Option<&'a str>,
    pub finished_at: Option<i64>,
    pub result: Option<&'a str>,
    /// Of a task, as the next three.
    pub step_name: Option<&'a str>,
    pub step_id: Option<&'a str>,
    pub decided_by: Option<&'a str>,
    pub due_at: Option<i64>,
}

/// All entries of an instance in the order of their notifications, with distinct keys.
#[derive(Default)]
pub struct Entries<'a> {
    entries: Vec<(Key<'a>, Entry<'a>)>,
    /// Indexes of `entries`, ordered by key.
    by_key: Vec<usize>,
}

impl<'a> Entries<'a> {
    fn of(entries: Vec<(Key<'a>, Entry<'a>)>) -> Self {
        let mut by_key: Vec<usize> = (0..entries.len()).collect();
        by_key.sort_unstable_by_key(|&at| entries[at].0);
        Self { entries, by_key }
    }

    fn get(&self, key: &Key<'a>) -> Option<&Entry<'a>> {
        let found = self.by_key.binary_search_by(|&at| self.entries[at].0.cmp(key));
        found.ok().map(|at| &self.entries[self.by_key[at]].1)
    }
}

/// All entries of this instance now; none where it is deleted.
pub fn views<'a>(instance: &Instance<'a>) -> Entries<'a> {
    if instance.lifecycle == Lifecycle::Deleted {
        return Entries::default();
    }
    let mut entries = Vec::new();
    let mut show = |user_id, view, task_id, entry| entries.push((Key { user_id, view, task_id }, entry));
    let whole = whole_entry(instance);
    if let Some(person) = instance.originator.value {
        show(person.user_id, View::Created, None, whole);
    }
    for copied in &instance.copied {
        let (entered_at, updated_at) = (copied.at, whole.updated_at.max(copied.at));
        show(copied.user_id, View::Copied, None, Entry { entered_at, updated_at, ..whole });
    }
    for user_id in unnamed_assignees(instance) {
        show(user_id, View::Pending, None, entry(instance, Status::Pending, instance.began_at));
    }
    for task in &instance.tasks {
        let task_id = Some(task.task_id);
        match task.decision {
            None => {
                for user_id in &task.assignee_ids {
                    show(user_id, View::Pending, task_id, task_entry(instance, task, task.created_at));
                }
            }
            Some(Decision { is_completed: true, actor_id: Some(actor_id), at, .. }) => {
                show(actor_id, View::Handled, task_id, task_entry(instance, task, Some(at)));
            }
            Some(_) => {}
        }
    }
    Entries::of(entries)
}

/// Notify of the changes from the entries before an event to the entries after it.
pub fn notify_changes<'a>(
    before: &Entries<'a>,
    after: &Entries<'a>,
    mut notify: impl FnMut(Key<'a>, Change, &Entry<'a>),
) {
    for (key, entry) in &before.entries {
        if after.get(key).is_none() {
            notify(*key, Change::Removed, entry);
        }
    }
    for (key, entry) in &after.entries {
        match before.get(key) {
            None => notify(*key, Change::Added, entry),
            Some(known) if known != entry => notify(*key, Change::Updated, entry),
            Some(_) => {}
        }
    }
}

/// Publish again every entry that anyone has or had: the notifications of the event before may have been lost.
pub fn republish<'a>(
    instance: &Instance<'a>,
    entries: &Entries<'a>,
    mut notify: impl FnMut(Key<'a>, Change, &Entry<'a>),
) {
    let whole = whole_entry(instance);
    let mut again = |user_id, view, task_id| {
        let key = Key { user_id, view, task_id };
        match entries.get(&key) {
            Some(entry) => notify(key, Change::Updated, entry),
            None => notify(key, Change::Removed, &whole),
        }
    };
    for user_id in &instance.originator_ids {
        again(user_id, View::Created, None);
    }
    for copied in &instance.copied {
        again(copied.user_id, View::Copied, None);
    }
    for user_id in &instance.assignee_ids {
        again(user_id, View::Pending, None);
    }
    for task in &instance.tasks {
        for user_id in &task.assignee_ids {
            again(user_id, View::Pending, Some(task.task_id));
        }
        for user_id in &task.actor_ids {
            again(user_id, View::Handled, Some(task.task_id));
        }
    }
}

/// Whether it had tasks or assignees, and nobody has anything left to do.
pub fn is_finished(instance: &Instance<'_>, unnamed: &[&str]) -> bool {
    unnamed.is_empty() && matches!(instance_status(instance), Status::Completed | Status::Cancelled)
}

/// Assignees of the instance whom no task has named: the state's `assignee_ids`.
pub fn unnamed_assignees<'a>(instance: &Instance<'a>) -> Vec<&'a str> {
    if instance.assignee_ids.is_empty() {
        return Vec::new();
    }
    let mut named: Vec<&str> = Vec::new();
    for task in &instance.tasks {
        named.extend(&task.assignee_ids);
        named.extend(&task.actor_ids);
    }
    named.sort_unstable();
    let assignees = instance.assignee_ids.iter().copied();
    assignees.filter(|user_id| named.binary_search(user_id).is_err()).collect()
}

fn instance_status(instance: &Instance<'_>) -> Status {
    let has = |status| instance.tasks.iter().any(|task| task.status() == status);
    [Status::Pending, Status::Completed, Status::Cancelled]
        .into_iter()
        .find(|&status| has(status))
        .unwrap_or(Status::Active)
}

/// The entry of the instance, updated by the creation and the decision of each task.
fn whole_entry<'a>(instance: &Instance<'a>) -> Entry<'a> {
    let moments = instance.tasks.iter().flat_map(|task| [task.created_at, task.decision.map(|each| each.at)]);
    let updated_at = moments.flatten().fold(instance.began_at, i64::max);
    Entry { updated_at, ..entry(instance, instance_status(instance), instance.began_at) }
}

fn task_entry<'a>(instance: &Instance<'a>, task: &Task<'a>, at: Option<i64>) -> Entry<'a> {
    let Decision { actor_id, outcome, remark, decided_by, .. } = task.decision.unwrap_or_default();
    Entry {
        url: task.url.value.or(instance.url.value),
        actor_id,
        outcome,
        remark,
        finished_at: None,
        result: None,
        step_name: task.step_name.value,
        step_id: task.step_id.value,
        decided_by,
        due_at: task.due_at.value,
        ..entry(instance, task.status(), at.unwrap_or(instance.began_at))
    }
}

fn entry<'a>(instance: &Instance<'a>, status: Status, at: i64) -> Entry<'a> {
    Entry {
        title: instance.title.value,
        url: instance.url.value,
        app_type: instance.app_type.value,
        originator: instance.originator.value,
        status,
        process_name: instance.process_name.value,
        source: instance.source,
        entered_at: at,
        updated_at: at,
        finished_at: instance.finished_at.value,
        result: instance.result(),
        ..Entry::default()
    }
}
