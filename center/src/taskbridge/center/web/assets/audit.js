// The auditors' page: who did what, newest first, filtered by what the address says.

import { Problem } from "./api.js";
import { element, replace, scrollingTable } from "./dom.js";
import { Format } from "./format.js";
import { ownLink, pageHead } from "./page-head.js";
import { pageApi, signInAs } from "./sign-in.js";
import { nothingToShow, problemShown } from "./states.js";
import { AUDIT_WORDS } from "./words-audit.js";
import { chosenWords } from "./words.js";

const PART = 100;
const PSEUDONYM = /^person-[0-9a-f]{16}$/;

class AuditTrail {
  constructor(root, api, me) {
    this._root = root;
    this._api = api;
    this._me = me;
    const given = new URLSearchParams(location.search);
    this._filters = Object.fromEntries(["person", "action", "day"].map((name) => [name, given.get(name) ?? ""]));
    this._items = [];
    this._complete = false;
  }

  start() {
    this.draw(chosenWords());
    this._load();
  }

  draw(words) {
    this._words = words;
    this._audit = AUDIT_WORDS[words.tag];
    this._format = new Format(words.tag);
    const form = this._filterForm();
    this._body = element("div");
    document.title = `${this._audit.title} · taskbridge`;
    const head = pageHead(words, {
      title: this._audit.title,
      other: ownLink("/", words.tasks),
      onLanguage: (next) => this.draw(next),
    });
    const panel = element("section", { class: "panel", "aria-label": this._audit.title }, form, this._body);
    replace(this._root, head, element("main", { class: "operation" }, panel));
    this._show();
  }

  _filterForm() {
    const { _audit: audit } = this;
    const person = element("input", { type: "search", placeholder: this._me.corp_id === null ? null : audit.personHint, autocomplete: "off", spellcheck: "false", maxlength: "513" });
    const actions = { "": audit.allActions, ...audit.actions };
    const action = element("select", {}, ...Object.entries(actions).map(([value, text]) => element("option", { value }, text)));
    const day = element("input", { type: "date" });
    this._fields = { person, action, day };
    this._fillIn();
    const clear = element("button", { type: "button", class: "quiet-button", on: { click: () => this._filter({ person: "", action: "", day: "" }) } }, audit.clear);
    // A program's token is in no link.
    this._csv = this._me.mode === "token" ? null : element("a", { class: "quiet-button", download: "audit.csv" }, audit.csv);
    const labelled = (text, field) => element("label", {}, element("span", {}, text), field);
    const form = element(
      "form",
      { class: "audit-filters", role: "search", "aria-label": audit.filters },
      labelled(audit.person, person),
      labelled(audit.action, action),
      labelled(audit.day, day),
      clear,
      this._csv,
    );
    person.addEventListener("input", () => person.setCustomValidity(""));
    const apply = (event) => {
      event.preventDefault();
      const whose = this._personOf(person.value.trim());
      person.setCustomValidity(whose === null ? audit.wrongPerson : "");
      if (form.reportValidity()) this._filter({ person: whose, action: action.value, day: day.value });
    };
    form.addEventListener("change", apply);
    form.addEventListener("submit", apply);
    return form;
  }

  _fillIn() {
    for (const [name, value] of Object.entries(this._filters)) this._fields[name].value = value;
    this._fields.person.setCustomValidity("");
  }

  /** Corp, slash, user; null where the corp is missing. */
  _personOf(typed) {
    if (typed === "" || /^[^/]+\/./.test(typed)) return typed;
    return this._me.corp_id === null || typed.includes("/") ? null : `${this._me.corp_id}/${typed}`;
  }

  _filter(filters) {
    if (JSON.stringify(filters) === JSON.stringify(this._filters)) return;
    this._filters = filters;
    const given = new URLSearchParams(Object.entries(filters).filter(([, value]) => value !== ""));
    history.replaceState(null, "", `${location.pathname}${given.size > 0 ? `?${given}` : ""}`);
    this._fillIn();
    [this._items, this._complete] = [[], false];
    this._load();
  }

  /** As the service takes them: a day is that of the reader's clock. */
  _query() {
    const { person, action, day } = this._filters;
    const query = { person, action };
    const from = new Date(`${day}T00:00`);
    if (Number.isNaN(from.getTime())) return query;
    const until = new Date(from);
    until.setDate(until.getDate() + 1);
    return { ...query, since: from.toISOString(), until: until.toISOString() };
  }

  async _load() {
    this._loading?.abort();
    const loading = new AbortController();
    this._loading = loading;
    this._problem = null;
    this._show();
    try {
      const before = this._items.at(-1)?.seq ?? null;
      const { items } = await this._api.audit({ ...this._query(), before, limit: PART }, loading.signal);
      if (loading.signal.aborted) return;
      this._items.push(...items);
      this._complete = items.length < PART;
    } catch (error) {
      if (loading.signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      // The session ended, or the role was taken away: the page asks again who it is.
      if (error.isRefusal) location.reload();
      this._problem = error;
    }
    this._loading = null;
    this._show();
  }

  _show() {
    const { _audit: audit, _items: items } = this;
    if (this._csv !== null) {
      const given = Object.entries(this._query()).filter(([, value]) => value !== "");
      this._csv.href = `/v1/audit.csv${given.length > 0 ? `?${new URLSearchParams(given)}` : ""}`;
    }
    const isLoading = this._loading !== null && this._loading !== undefined;
    const said = isLoading ? this._words.loading : audit.shown(items.length, this._complete);
    const more = element("button", { type: "button", class: "quiet-button", data: { keep: "more" }, on: { click: () => this._load() } }, audit.more);
    const focused = document.activeElement?.dataset.keep === "more";
    const foot = element("div", { class: "audit-more" }, element("p", { class: "faint", role: "status" }, said), this._complete || isLoading ? null : more);
    const isEmpty = items.length === 0 && this._complete;
    replace(
      this._body,
      items.length > 0 ? this._table() : isEmpty ? nothingToShow("search", audit.none) : null,
      this._problem ? problemShown(this._problem, this._words, () => this._load()) : isEmpty ? null : foot,
    );
    if (focused) more.focus();
  }

  _table() {
    const { columns, title } = this._audit;
    const shown = [
      [columns.at, ([row]) => element("time", { datetime: row.at }, this._format.full(row.at))],
      [columns.who, ([row]) => this._who(row)],
      [columns.action, (entries) => this._done(entries)],
      [columns.about, ([row]) => this._about(row), "long"],
      [columns.address, ([row]) => element("bdi", {}, row.address || "–")],
      [columns.number, (entries) => element("bdi", { class: "mono" }, numbersOf(entries))],
    ];
    const cells = (entries) => shown.map(([heading, cell, kind = ""]) => element("td", { class: kind, data: { heading } }, element("span", {}, cell(entries))));
    const headings = shown.map(([heading]) => element("th", { scope: "col" }, heading));
    const rows = byAction(this._items).map((entries) => element("tr", {}, ...cells(entries)));
    return scrollingTable(title, headings, rows, { kind: "records" });
  }

  /** What was done; of an action on a task, also how often it was sent and what became of it. */
  _done(entries) {
    const { actions, sent, statuses } = this._audit;
    const [{ action, decision }] = entries;
    const verb = decision ?? action;
    const name = element("bdi", {}, Object.hasOwn(actions, verb) ? actions[verb] : verb);
    const count = entries.filter((each) => each.action === "action_sent").length;
    const status = statuses[entries.at(-1).status];
    const more = [count > 0 ? sent(count) : null, status].filter(Boolean).join(" · ");
    return more === "" ? name : [name, " ", element("span", { class: "faint" }, more)];
  }

  _who({ corp_id: corp, actor, actor_name: name }) {
    if (corp === "") return actor === "" ? this._audit.thisMachine : [`${this._audit.program} `, element("bdi", {}, actor)];
    return this._person(`${corp}/${actor}`, PSEUDONYM.test(actor) ? this._audit.erased : name, actor);
  }

  _about({ action, action_id: its, subject, subject_name: name, instance_id: instance, title }) {
    if (title !== null) return element("bdi", { title: instance }, title);
    if (its !== null) return element("bdi", {}, instance ?? "–");
    if (action === "read" && subject.startsWith("waiting ")) return element("bdi", {}, this._audit.waiting(subject.slice("waiting ".length)));
    if (name !== null) return this._person(subject, name, subject);
    if (PSEUDONYM.test(subject)) return [`${this._audit.erased} `, element("bdi", { class: "faint" }, subject)];
    return element("bdi", {}, subject === "everywhere" ? this._audit.everywhere : subject || "–");
  }

  /** A button that shows this person's entries. */
  _person(person, name, id) {
    const button = element("button", { type: "button", class: "audit-person", on: { click: () => this._filter({ ...this._filters, person }) } }, element("bdi", {}, name ?? id));
    return name === null ? button : [button, " ", element("bdi", { class: "faint" }, id)];
  }
}

/** Lists of entries, of each the earliest first: all that were read about one action are one list, where it began. */
function byAction(items) {
  const lists = new Map();
  for (const item of items) {
    const key = item.action_id ?? item.seq;
    const list = [item, ...(lists.get(key) ?? [])];
    lists.delete(key);
    lists.set(key, list);
  }
  return [...lists.values()];
}

function numbersOf(entries) {
  const [first, last] = [entries[0].seq, entries.at(-1).seq];
  return first === last ? String(first) : `${first} … ${last}`;
}

async function main() {
  const root = document.querySelector("#page");
  const api = pageApi();
  const words = chosenWords();
  const me = await signInAs(api, root, words, ({ auditor }) => auditor, AUDIT_WORDS[words.tag].signIn);
  new AuditTrail(root, api, me).start();
}

main();
