// "Was this callback received, and what became of it?" by the id of an instance.

import { Latest } from "./api.js";
import { UNTOUCHED, element, icon, recordsTable, replace } from "./dom.js";
import { namesIn } from "./format.js";
import { deadLetterColumns, quarantineColumns, reasonTold } from "./ops-panels.js";
import { panel } from "./page-head.js";
import { problemShown } from "./states.js";
import { isEnd, timelineShown } from "./timeline.js";

const VERDICT_ICONS = { known: "check", replayed: "check", unknown: "search" };

export function callbackSearch(page) {
  const { api, words, ops } = page;
  const asking = new Latest();
  const field = element("input", { type: "search", "aria-label": ops.findHint, placeholder: ops.findHint, maxlength: "512", ...UNTOUCHED });
  const answer = element("div", { class: "find-answer", "aria-live": "polite" });
  const submit = (event) => (event.preventDefault(), find(field.value));
  const form = element("form", { class: "find-form", role: "search", on: { submit } }, element("div", { class: "search" }, icon("search"), field), element("button", { type: "submit", class: "primary-button" }, ops.find));

  async function find(given) {
    const id = given.trim();
    field.value = id;
    asking.cancel();
    history.replaceState(null, "", id === "" ? location.pathname : `#${encodeURIComponent(id)}`);
    replace(answer, id === "" ? null : element("p", { class: "faint" }, words.loading));
    if (id === "") return;
    await asking.run((signal) => api.get("/v1/ops/callbacks", { instance_id: id }, signal), {
      found: (found) => replace(answer, shown(found, page)),
      failed: (problem) => replace(answer, problemShown(problem, words, () => find(id))),
    });
  }

  return { root: panel("find", ops.findTitle, null, form, answer), find, typed: () => field.value };
}

function shown(found, page) {
  const { words, ops, format } = page;
  const { state, history: events, quarantined, dead_letters: letters, notifications, searched } = found;
  const verdict = verdictOf(found);
  const names = namesIn(state?.originator, state, events);
  const name = (id) => names.get(id) ?? id;
  const part = (heading, ...content) => element("section", { class: "find-part" }, element("h3", {}, heading), ...content);
  const rows = (heading, columns, entries) => (entries.length > 0 ? part(heading, recordsTable(heading, columns, entries)) : null);
  const notified = [
    [words.columns.at, (row) => format.moment(row.occurred_at)],
    [words.columns.who, ({ recipient_id: id }) => (names.has(id) ? `${name(id)} ${id}` : id)],
    [words.columns.view, (row) => words.views[row.view] ?? row.view],
    [words.columns.change, (row) => ops.changes[row.change] ?? row.change],
    [words.columns.status, (row) => words.statuses[row.status] ?? row.status],
  ];
  return [
    element(
      "div",
      { class: "verdict", data: { verdict } },
      icon(VERDICT_ICONS[verdict] ?? "warning"),
      element("div", {}, element("b", {}, ops.verdicts[verdict]), element("p", {}, element("bdi", {}, told(found, page)))),
    ),
    state?.title ? element("p", { class: "find-title" }, element("bdi", {}, state.title)) : null,
    events ? part(ops.openInstance, ...[timelineShown(events, { words, format, name })].flat()) : null,
    rows(ops.headings.quarantine, [...quarantineColumns(page), [words.columns.detail, (row) => row.detail, "long"]], quarantined),
    rows(ops.headings["dead-letters"], deadLetterColumns(page), letters),
    rows(ops.notifications, notified, notifications),
    element("p", { class: "faint" }, ops.searched(format.number(searched.quarantine_records), format.number(searched.dead_letter_records), format.full(searched.since), searched.complete)),
  ];
}

/** The service's own sentence is English and in UTC: for scripts. People get the same in their words and time. */
function told({ state, deleted, history: events, quarantined, dead_letters: letters, people, searched }, { words, ops, format }) {
  const say = ops.told;
  const reasons = (entries) => [...new Set(entries.map(({ reason }) => reasonTold(reason, ops)))].join(words.listComma);
  const replays = (entries) => {
    const replayed = entries.map(({ replayed_at: at }) => at).filter(Boolean).sort();
    return replayed.length === 0 ? say.notReplayed : say.replayed(format.full(replayed.at(-1)), entries.length - replayed.length);
  };
  const said = [];
  if (state !== null && !deleted) {
    const last = events?.events.at(-1);
    const action = last && (isEnd(last) ? say.ended : (ops.actions[last.action] ?? last.action));
    const received = last ? [say.events(events.events.length, events.complete), say.last(action, format.full(last.occurred_at))] : [say.eventsGone];
    said.push([...received, say.people(people)].join(say.clause) + say.end);
  }
  if (quarantined.length > 0) said.push(say.rejected(quarantined.length, reasons(quarantined), replays(quarantined)));
  if (letters.length > 0) said.push(say.parked(letters.length, reasons(letters), replays(letters)));
  if (said.length === 0 && !deleted) said.push(say.never(format.full(searched.since)));
  return said.join(" ");
}

const waits = ({ replayed_at: at }) => !at;

function verdictOf({ state, deleted, quarantined, dead_letters: letters, history: events }) {
  if (deleted) return "deleted";
  if (state !== null || (events?.events.length ?? 0) > 0) return "known";
  if (letters.some(waits)) return "deadLettered";
  if (quarantined.some(waits)) return "quarantined";
  return letters.length + quarantined.length > 0 ? "replayed" : "unknown";
}
