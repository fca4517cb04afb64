// "Was this callback received, and what became of it?" by the id of an instance.

import { Latest } from "./api.js";
import { UNTOUCHED, element, icon, recordsTable, replace } from "./dom.js";
import { namesIn } from "./format.js";
import { deadLetterColumns, quarantineColumns } from "./ops-panels.js";
import { panel } from "./page-head.js";
import { problemShown } from "./states.js";
import { timelineShown } from "./timeline.js";

/** They are past their retention. */
const NO_EVENTS = { events: [], complete: false };
const VERDICT_ICONS = { known: "check", replayed: "check", unknown: "search" };

export function callbackSearch(page) {
  const { api, words, ops } = page;
  const asking = new Latest();
  const field = element("input", { type: "search", "aria-label": ops.findHint, placeholder: ops.findHint, maxlength: "512", ...UNTOUCHED });
  const answer = element("div", { class: "find-answer", "aria-live": "polite" });
  const submit = (event) => (event.preventDefault(), find(field.value));
  const form = element("form", { class: "find-form line", role: "search", on: { submit } }, element("div", { class: "search" }, icon("search"), field), element("button", { type: "submit", class: "primary-button" }, ops.find));

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
      { class: "verdict strip", data: { verdict } },
      icon(VERDICT_ICONS[verdict] ?? "warning"),
      element("b", {}, ops.verdicts[verdict]),
    ),
    state?.title ? element("p", { class: "find-title" }, element("bdi", {}, state.title)) : null,
    state || events ? part(ops.openInstance, timelineShown(events ?? NO_EVENTS, { words, format, name })) : null,
    rows(ops.headings.quarantine, [...quarantineColumns(page), [words.columns.detail, (row) => row.detail, "long"]], quarantined),
    rows(ops.headings["dead-letters"], deadLetterColumns(page), letters),
    rows(ops.notifications, notified, notifications),
    element("p", { class: "faint" }, ops.searched(format.number(searched.quarantine_records), format.number(searched.dead_letter_records), format.full(searched.since), searched.complete)),
  ];
}

const waits = ({ replayed_at: at }) => !at;

function verdictOf({ state, deleted, quarantined, dead_letters: letters, history: events }) {
  if (deleted) return "deleted";
  if (state !== null || (events?.events.length ?? 0) > 0) return "known";
  if (letters.some(waits)) return "deadLettered";
  if (quarantined.some(waits)) return "quarantined";
  return letters.length + quarantined.length > 0 ? "replayed" : "unknown";
}
