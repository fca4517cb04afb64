// What happened to an instance, oldest first, in sentences.

import { stepShown } from "./decisions.js";
import { element, icon } from "./dom.js";
import { decisionOf } from "./states.js";

const ICONS = { CREATED: "plus", COMPLETED: "check", CANCELLED: "cancel", DELETED: "trash", COPIED: "copy" };
const ENDS = new Set(["completed", "terminated", "canceled", "cancelled"]);
/** An event is received within moments; what takes longer was kept in a spool or sent late, and is worth telling. */
const LATE_MS = 60_000;

/** `history` as the service gives it, or null when it could not be read. */
export function timelineShown(history, { words, format, name }) {
  if (history === null) return element("p", { class: "faint" }, words.detail.timelineFailed);
  if (history.events.length === 0) return element("p", { class: "faint" }, words.detail.noEvents);
  const note = history.complete ? null : element("p", { class: "faint" }, words.detail.timelineIncomplete);
  return [note, element("ol", { class: "timeline" }, ...history.events.map((event) => step(event, { words, format, name })))];
}

/** Whether it describes the instance once more when its process has ended: as a create, for want of another action. */
function isEnd({ action, recipient_ids: to, finished_at: finished, instance_status: status }) {
  return action === "CREATED" && !to?.length && (Boolean(finished) || ENDS.has(status?.toLowerCase()));
}

function step(event, { words, format, name }) {
  const late = Date.parse(event.received_at) - Date.parse(event.occurred_at);
  const { action, said } = isEnd(event) ? ended(event, words) : { action: event.action, said: sentence(event, words, name) };
  const submitted = action === "CREATED" && event.recipient_ids?.length > 0;
  return element(
    "li",
    { class: "step" },
    element("span", { class: "step-icon", data: { status: action } }, icon(submitted ? "send" : (ICONS[action] ?? "clock"))),
    element(
      "div",
      { class: "step-main" },
      element("p", { class: "step-said" }, element("bdi", {}, said)),
      element(
        "p",
        { class: "step-when line note" },
        format.time(event.occurred_at),
        ...stepShown(event, words),
        late > LATE_MS ? element("span", { class: "step-late" }, words.detail.late(format.seconds(late / 1000))) : null,
      ),
    ),
  );
}

/** Drawn as the decision that it was. */
function ended({ approved_result: result, instance_status: status }, words) {
  const decision = decisionOf(result || status, words);
  return { action: decision?.against ? "CANCELLED" : "COMPLETED", said: words.said.ended(decision?.text) };
}

function sentence(event, words, name) {
  const kind = event.action.toLowerCase();
  const say = words.said[kind] ?? words.said.unknown;
  const who = event.actor_id ? name(event.actor_id) : null;
  const to = (event.recipient_ids ?? []).map(name).join(words.listComma);
  return say(who, to);
}
