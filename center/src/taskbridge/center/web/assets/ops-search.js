// "Was this callback received, and what became of it?" by the id of an instance.

import { Problem } from "./api.js";
import { element, icon, replace } from "./dom.js";
import { namesIn } from "./format.js";
import { deadLetterColumns, quarantineColumns, reasonTold, rowsShown } from "./ops-panels.js";
import { problemShown } from "./states.js";
import { isEnd, timelineShown } from "./timeline.js";

export class CallbackSearch {
  constructor(api, words, opsWords, format) {
    this._api = api;
    this._words = words;
    this._ops = opsWords;
    this._format = format;
    this._asking = null;
    this._field = element("input", {
      type: "search",
      name: "instance_id",
      "aria-label": opsWords.findHint,
      placeholder: opsWords.findHint,
      autocomplete: "off",
      spellcheck: "false",
      maxlength: "512",
    });
    this._answer = element("div", { class: "find-answer", "aria-live": "polite" });
    const form = element("form", { class: "find-form", role: "search" }, icon("search"), this._field, element("button", { type: "submit", class: "primary-button" }, opsWords.find));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.find(this._field.value);
    });
    this.root = element("section", { class: "panel find" }, element("h2", {}, opsWords.findTitle), form, this._answer);
  }

  get sought() {
    return this._field.value.trim();
  }

  async find(given) {
    const id = given.trim();
    this._field.value = id;
    this._asking?.abort();
    history.replaceState(null, "", id === "" ? location.pathname : `#${encodeURIComponent(id)}`);
    if (id === "") {
      replace(this._answer);
      return;
    }
    const asking = new AbortController();
    this._asking = asking;
    replace(this._answer, element("p", { class: "faint" }, this._words.loading));
    try {
      const found = await this._api.callbacks(id, asking.signal);
      if (!asking.signal.aborted) replace(this._answer, this._shown(found));
    } catch (error) {
      if (asking.signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      replace(this._answer, problemShown(error, this._words, () => this.find(id)));
    }
  }

  _shown(found) {
    const ops = this._ops;
    const verdict = verdictOf(found);
    const { quarantine_records: quarantine, dead_letter_records: letters, since, complete } = found.searched;
    return [
      element(
        "div",
        { class: "verdict", data: { verdict } },
        icon(verdict === "known" || verdict === "replayed" ? "check" : verdict === "unknown" ? "search" : "warning"),
        element("div", {}, element("b", {}, ops.verdicts[verdict]), element("p", {}, element("bdi", {}, this._told(found)))),
      ),
      found.state?.title ? element("p", { class: "find-title" }, element("bdi", {}, found.state.title)) : null,
      found.history ? this._part(ops.openInstance, timelineShown(found.history, this._context(found))) : null,
      found.quarantined.length > 0 ? this._part(ops.quarantine, this._table(found.quarantined, quarantineColumns(ops, this._format), ops.quarantine)) : null,
      found.dead_letters.length > 0 ? this._part(ops.deadLetters, rowsShown(found.dead_letters, deadLetterColumns(ops, this._format), ops.deadLetters)) : null,
      found.notifications.length > 0 ? this._part(ops.notifications, this._notifications(found)) : null,
      element("p", { class: "faint" }, ops.searched(this._format.number(quarantine), this._format.number(letters), this._format.full(since), complete)),
    ];
  }

  /** The service's own sentence is English and in UTC: for scripts. People get the same in their words and time. */
  _told({ state, deleted, history: events, quarantined, dead_letters: letters, people, searched }) {
    const { told, actions } = this._ops;
    const said = [];
    if (state !== null && !deleted) {
      const last = events?.events.at(-1);
      const received = last
        ? [told.events(events.events.length, events.complete), told.last(isEnd(last) ? told.ended : (actions[last.action] ?? last.action), this._format.full(last.occurred_at))]
        : [told.eventsGone];
      said.push([...received, told.people(people)].join(told.clause) + told.end);
    }
    if (quarantined.length > 0) said.push(told.rejected(quarantined.length, reasonsOf(quarantined, this._ops, this._words), this._replays(quarantined)));
    if (letters.length > 0) said.push(told.parked(letters.length, reasonsOf(letters, this._ops, this._words), this._replays(letters)));
    if (said.length === 0 && !deleted) said.push(told.never(this._format.full(searched.since)));
    return said.join(" ");
  }

  _replays(entries) {
    const replayed = entries.map(({ replayed_at: at }) => at).filter(Boolean).sort();
    const { told } = this._ops;
    return replayed.length === 0 ? told.notReplayed : told.replayed(this._format.full(replayed.at(-1)), entries.length - replayed.length);
  }

  _context({ state, history: events }) {
    const names = namesIn(state?.originator, state, events);
    return { words: this._words, format: this._format, name: (id) => names.get(id) ?? id };
  }

  _part(heading, ...content) {
    return element("section", { class: "find-part" }, element("h3", {}, heading), ...content);
  }

  _table(rows, columns, label) {
    return rowsShown(rows, [...columns, [this._ops.columns.detail, (row) => row.detail, "long"]], label);
  }

  _notifications(found) {
    const { columns, changes } = this._ops;
    const { name } = this._context(found);
    const who = (id) => (name(id) === id ? id : `${name(id)} ${id}`);
    const shown = [
      [columns.at, (row) => this._format.moment(row.occurred_at)],
      [columns.who, (row) => who(row.recipient_id)],
      [columns.view, (row) => this._words.views[row.view] ?? row.view],
      [columns.change, (row) => changes[row.change] ?? row.change],
      [columns.status, (row) => this._words.statuses[row.status] ?? row.status],
    ];
    return rowsShown(found.notifications, shown, this._ops.notifications);
  }
}

const reasonsOf = (entries, ops, words) => [...new Set(entries.map(({ reason }) => reasonTold(reason, ops)))].join(words.listComma);

const waits = ({ replayed_at: at }) => !at;

function verdictOf({ state, deleted, quarantined, dead_letters: letters, history: events }) {
  if (deleted) return "deleted";
  if (state !== null || (events?.events.length ?? 0) > 0) return "known";
  if (letters.some(waits)) return "deadLettered";
  if (quarantined.some(waits)) return "quarantined";
  return letters.length + quarantined.length > 0 ? "replayed" : "unknown";
}
