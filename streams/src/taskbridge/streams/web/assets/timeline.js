// What happened to an instance, oldest first, in sentences.

import { element, icon } from "./dom.js";

const ICONS = { CREATED: "plus", COMPLETED: "check", CANCELLED: "cancel", DELETED: "trash", COPIED: "copy" };
/** An event is received within moments; what takes longer was kept in a spool or sent late, and is worth telling. */
const LATE_MS = 60_000;

/** `history` as the service gives it, or null when it could not be read. */
export function timelineShown(history, { words, format, name }) {
  if (history === null) return element("p", { class: "faint" }, words.detail.timelineFailed);
  if (history.events.length === 0) return element("p", { class: "faint" }, words.detail.noEvents);
  const note = history.complete ? null : element("p", { class: "faint" }, words.detail.timelineIncomplete);
  return [note, element("ol", { class: "timeline" }, ...history.events.map((event) => step(event, { words, format, name })))];
}

function step(event, { words, format, name }) {
  const late = Date.parse(event.received_at) - Date.parse(event.occurred_at);
  return element(
    "li",
    { class: "step", data: { action: event.action } },
    element("span", { class: "step-icon" }, icon(event.action === "CREATED" && event.recipient_ids?.length > 0 ? "send" : (ICONS[event.action] ?? "clock"))),
    element(
      "div",
      { class: "step-main" },
      element("p", { class: "step-said" }, element("bdi", {}, sentence(event, words, name))),
      element(
        "p",
        { class: "step-when" },
        element("time", { datetime: event.occurred_at }, format.full(event.occurred_at)),
        late > LATE_MS ? element("span", { class: "step-late" }, words.detail.late(format.seconds(late / 1000))) : null,
      ),
    ),
  );
}

function sentence(event, words, name) {
  const kind = event.action.toLowerCase();
  const say = words.said[kind] ?? words.said.unknown;
  const who = event.actor_id ? name(event.actor_id) : null;
  const to = (event.recipient_ids ?? []).map(name).join(words.tag === "en" ? ", " : "、");
  return say(who, to);
}
