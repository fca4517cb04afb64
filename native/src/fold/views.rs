//! What people see of an instance, and what to tell them when it changes. Mirrors `streams/fold/views.py`.

use crate::fold::event::Person;
use crate::fold::instance::{Instance, Task};
use crate::fold::words::{Change, Lifecycle, Status, View};

/// One line in one person's view. `task_id` is None where the line is about the whole instance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key<'a> {
    pub user_id: &'a str,
    pub view: View,
    pub task_id: Option<&'a str>,
}

/// What the line says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    pub title: Option<&'a str>,
    pub url: Option<&'a str>,
    pub app_type: &'a str,
    pub originator: Option<Person<'a>>,
    pub actor_id: Option<&'a str>,
    pub status: Status,
    pub process_name: Option<&'a str>,
    pub source: &'a str,
    /// When the line entered the view, and when what it is about last moved: functions of the state.
    pub entered_at: i64,
    pub updated_at: i64,
    /// How the task was decided, or how the instance ended: of what the line is about.
    pub outcome: Option<&'a str>,
    pub remark: Option<&'a str>,
    pub finished_at: Option<i64>,
    pub result: Option<&'a str>,
}

/// Every line that anybody sees of an instance, in the order in which they are told; no key stands twice.
#[derive(Default)]
pub struct Lines<'a> {
    lines: Vec<(Key<'a>, Entry<'a>)>,
    /// Places in `lines`, ordered by key.
    by_key: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(lines: Vec<(Key<'a>, Entry<'a>)>) -> Self {
        let mut by_key: Vec<usize> = (0..lines.len()).collect();
        by_key.sort_unstable_by_key(|&at| lines[at].0);
        Self { lines, by_key }
    }

    fn get(&self, key: &Key<'a>) -> Option<&Entry<'a>> {
        let found = self.by_key.binary_search_by(|&at| self.lines[at].0.cmp(key));
        found.ok().map(|at| &self.lines[self.by_key[at]].1)
    }
}

/// Every line that anybody sees of this instance now; nothing when it is deleted.
pub fn views<'a>(instance: &Instance<'a>) -> Lines<'a> {
    if instance.lifecycle == Lifecycle::Deleted {
        return Lines::default();
    }
    let mut lines = Vec::new();
    let mut show = |user_id, view, task_id, entry| {
        let key = Key { user_id, view, task_id };
        lines.push((key, entry));
    };
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
        match (task.status, task.actor_id) {
            (Status::Pending, _) => {
                for user_id in &task.assignee_ids {
                    show(user_id, View::Pending, task_id, task_entry(instance, task, task.created_at));
                }
            }
            (Status::Completed, Some(actor_id)) => {
                show(actor_id, View::Handled, task_id, task_entry(instance, task, task.decided_at));
            }
            _ => {}
        }
    }
    Lines::of(lines)
}

/// Tell what brings readers from the lines before to those after an event that changed the instance.
pub fn tell_difference<'a>(before: &Lines<'a>, after: &Lines<'a>, mut tell: impl FnMut(Key<'a>, Change, Entry<'a>)) {
    for (key, entry) in &before.lines {
        if after.get(key).is_none() {
            tell(*key, Change::Removed, *entry);
        }
    }
    for (key, entry) in &after.lines {
        match before.get(key) {
            None => tell(*key, Change::Added, *entry),
            Some(known) if known != entry => tell(*key, Change::Updated, *entry),
            Some(_) => {}
        }
    }
}

/// Tell everyone who has, or ever had, a line of the instance how it stands: the event before may have been lost.
pub fn tell_again<'a>(instance: &Instance<'a>, lines: &Lines<'a>, mut tell: impl FnMut(Key<'a>, Change, Entry<'a>)) {
    let whole = whole_entry(instance);
    let mut again = |user_id, view, task_id| {
        let key = Key { user_id, view, task_id };
        match lines.get(&key) {
            Some(entry) => tell(key, Change::Updated, *entry),
            None => tell(key, Change::Removed, whole),
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

/// Whether it had something to be done and nobody has to do any of it now.
pub fn is_finished(instance: &Instance<'_>) -> bool {
    let status = instance_status(instance);
    matches!(status, Status::Completed | Status::Cancelled) && unnamed_assignees(instance).is_empty()
}

fn unnamed_assignees<'a>(instance: &Instance<'a>) -> Vec<&'a str> {
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
    let has = |status| instance.tasks.iter().any(|task| task.status == status);
    [Status::Pending, Status::Completed, Status::Cancelled]
        .into_iter()
        .find(|&status| has(status))
        .unwrap_or(Status::Active)
}

/// Of the instance: from its beginning to the last creation or decision of a task.
fn whole_entry<'a>(instance: &Instance<'a>) -> Entry<'a> {
    let moments = instance.tasks.iter().flat_map(|task| [task.created_at, task.decided_at]);
    let updated_at = moments.flatten().fold(instance.began_at, i64::max);
    Entry { updated_at, ..entry(instance, instance_status(instance), instance.began_at) }
}

fn task_entry<'a>(instance: &Instance<'a>, task: &Task<'a>, at: Option<i64>) -> Entry<'a> {
    let url = task.url.value.or(instance.url.value);
    let (actor_id, outcome, remark) = (task.actor_id, task.outcome, task.remark);
    let whole = entry(instance, task.status, at.unwrap_or(instance.began_at));
    Entry { url, actor_id, outcome, remark, finished_at: None, result: None, ..whole }
}

fn entry<'a>(instance: &Instance<'a>, status: Status, at: i64) -> Entry<'a> {
    Entry {
        title: instance.title.value,
        url: instance.url.value,
        app_type: instance.app_type.value,
        originator: instance.originator.value,
        actor_id: None,
        status,
        process_name: instance.process_name.value,
        source: instance.source,
        entered_at: at,
        updated_at: at,
        outcome: None,
        remark: None,
        finished_at: instance.finished_at.value,
        result: instance.result(),
    }
}
