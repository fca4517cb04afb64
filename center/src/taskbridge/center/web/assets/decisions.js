// Where an instance stands: who decided what, who has it now, and the steps to come; and how it ended. From its state:
// the timeline may have lost the events by then.

import { element } from "./dom.js";
import { decisionShown, statusShown } from "./states.js";

/** A list, in order; null where there is nothing. `toCome`: steps as the service foresees them. */
export function decisionsShown({ tasks, finished_at: end }, toCome, { words, format, name }) {
  const known = tasks.filter(({ status, decided_at: at }) => status !== "PENDING" && at !== null);
  const decided = known.toSorted((one, other) => Date.parse(one.decided_at) - Date.parse(other.decided_at));
  const open = end ? [] : tasks.filter(({ status }) => status === "PENDING");
  const rows = [
    ...decided.map((task) => decision(task, words, format, name)),
    ...open.map((task) => waiting(task, words, format, name)),
    ...toCome.map((step) => later(step, words, name)),
  ];
  return rows.length === 0 ? null : element("ol", { class: "decisions" }, ...rows);
}

function decision(task, words, format, name) {
  const { actor_id: actor, status, outcome, remark, decided_at: at } = task;
  return element(
    "li",
    { class: "line", data: { stands: "done" } },
    actor === null ? null : element("b", { class: "decision-by" }, element("bdi", {}, name(actor))),
    // A word that only the sender knows is better than none.
    decisionShown(task, words) ?? statusShown(status, words, outcome || words.statuses[status]),
    ...stepShown(task, words),
    element("span", { class: "note" }, format.time(at)),
    remark ? element("p", { class: "form-text" }, element("bdi", {}, remark)) : null,
  );
}

function waiting({ assignee_ids: people, created_at: since, step_name: step }, words, format, name) {
  return element(
    "li",
    { class: "line", "aria-current": "step", data: { stands: "now" } },
    ...people.map((id) => element("b", {}, element("bdi", {}, name(id)))),
    statusShown("PENDING", words),
    ...stepShown({ step_name: step }, words),
    since ? element("span", { class: "note" }, words.detail.since(format.full(since))) : null,
  );
}

function later({ name: step, user_ids: people }, words, name) {
  return element(
    "li",
    { class: "line", data: { stands: "later" } },
    element("bdi", {}, step),
    ...people.map((id) => element("bdi", { class: "chip" }, name(id))),
    element("span", { class: "note" }, words.detail.toCome),
  );
}

/** The name of a task's step, and that no person or somebody for them decided it; of a task or an event. */
export function stepShown({ step_name: step, decided_by: by }, words) {
  const decider = Object.hasOwn(words.deciders, by) ? words.deciders[by] : null;
  return [step, decider].filter(Boolean).map((each) => element("bdi", { class: "faint" }, each));
}

/** How the whole instance ended, and when; null while it has not. */
export function resultShown({ result, finished_at: at }, status, { words, format }) {
  if (!at && !result) return null;
  // Of a task that is still pending, the instance may have ended.
  const shown = decisionShown({ status: status === "PENDING" ? "COMPLETED" : status, result }, words) ?? (result ? element("bdi", {}, result) : null);
  return [shown, at ? format.time(at) : null];
}
