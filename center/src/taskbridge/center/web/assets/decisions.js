// Who decided what of an instance, and how it ended, from its state: the timeline may have lost the events by then.

import { element } from "./dom.js";
import { decisionShown, statusShown } from "./states.js";

/** A list, oldest first; null where nothing is decided. */
export function decisionsShown({ tasks }, { words, format, name }) {
  const decided = tasks.filter(({ status, decided_at: at }) => status !== "PENDING" && at !== null);
  if (decided.length === 0) return null;
  const rows = decided.toSorted((one, other) => Date.parse(one.decided_at) - Date.parse(other.decided_at));
  return element("ol", { class: "decisions" }, ...rows.map((task) => decision(task, words, format, name)));
}

function decision(task, words, format, name) {
  const { actor_id: actor, status, outcome, remark, decided_at: at } = task;
  return element(
    "li",
    { class: "line" },
    actor === null ? null : element("b", { class: "decision-by" }, element("bdi", {}, name(actor))),
    // A word that only the sender knows is better than none.
    decisionShown(task, words) ?? statusShown(status, words, outcome || words.statuses[status]),
    ...stepShown(task, words),
    element("span", { class: "note" }, format.time(at)),
    remark ? element("p", { class: "form-text" }, element("bdi", {}, remark)) : null,
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
