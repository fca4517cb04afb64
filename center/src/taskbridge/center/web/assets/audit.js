// The auditors' page: who did what, newest first, filtered by what the address says.

import { Latest, search } from "./api.js";
import { UNTOUCHED, button, element, labelled, offer, recordsTable, replace } from "./dom.js";
import { Format } from "./format.js";
import { panelPage } from "./page-head.js";
import { pageApi, signInAs } from "./sign-in.js";
import { nothingToShow, problemShown } from "./states.js";
import { chosenWords } from "./words.js";

const PART = 100;
const PSEUDONYM = /^person-[0-9a-f]{16}$/;
const NO_FILTERS = { person: "", action: "", day: "" };

class AuditTrail {
  constructor(root, api, words, me) {
    this._api = api;
    this._words = words;
    this._format = new Format(words.tag);
    this._items = [];
    this._complete = false;
    this._loading = new Latest();
    const { title } = words.audit;
    this._body = element("div");
    this._form = this._filterForm(me);
    panelPage(root, words, { title }, element("section", { class: "panel audit", "aria-label": title }, this._form, this._body));
    const given = new URLSearchParams(location.search);
    this._fillIn(Object.fromEntries(Object.keys(NO_FILTERS).map((name) => [name, given.get(name) ?? ""])));
    this._load();
  }

  /** A person is an organisation, a slash and a user: of the reader's own organisation, the user alone. */
  _filterForm({ corp_id: corp, mode }) {
    const { audit } = this._words;
    const only = corp === null ? { pattern: "[^\\/]+\\/.+" } : { pattern: "[^\\/]+(\\/.+)?", placeholder: audit.personHint };
    const person = element("input", { type: "search", name: "person", title: audit.wrongPerson, maxlength: "513", ...only, ...UNTOUCHED });
    // A program's token is in no link.
    this._csv = mode === "token" ? null : element("a", { class: "quiet-button", download: "audit.csv" }, audit.csv);
    const apply = (event) => {
      event.preventDefault();
      const { person: typed, ...others } = Object.fromEntries(new FormData(form));
      const whose = typed.trim();
      if (form.reportValidity()) this._filter({ person: whose === "" || whose.includes("/") ? whose : `${corp}/${whose}`, ...others });
    };
    const form = element(
      "form",
      { class: "find-form", role: "search", "aria-label": audit.filters, on: { change: apply, submit: apply } },
      labelled(audit.person, person),
      labelled(this._words.columns.action, offer(element("select", { name: "action" }), Object.entries({ "": audit.allActions, ...audit.actions }))),
      labelled(this._words.columns.day, element("input", { type: "date", name: "day" })),
      button(audit.clear, () => this._filter(NO_FILTERS)),
      this._csv,
    );
    return form;
  }

  _fillIn(filters) {
    this._filters = filters;
    for (const [name, value] of Object.entries(filters)) this._form.elements[name].value = value;
  }

  _filter(filters) {
    if (JSON.stringify(filters) === JSON.stringify(this._filters)) return;
    this._fillIn(filters);
    history.replaceState(null, "", location.pathname + search(filters));
    [this._items, this._complete] = [[], false];
    this._load();
  }

  /** As the service takes them: a day is that of the reader's clock. */
  _query() {
    const { person, action, day } = this._filters;
    const from = new Date(`${day}T00:00`);
    if (Number.isNaN(from.getTime())) return { person, action };
    const until = new Date(from);
    until.setDate(until.getDate() + 1);
    return { person, action, since: from.toISOString(), until: until.toISOString() };
  }

  async _load() {
    this._problem = null;
    this._isLoading = true;
    this._show();
    const query = { ...this._query(), before: this._items.at(-1)?.seq ?? null, limit: PART };
    await this._loading.run((signal) => this._api.get("/v1/audit", query, signal), {
      found: ({ items }) => {
        this._items.push(...items);
        this._complete = items.length < PART;
        this._isLoading = false;
      },
      failed: (problem) => {
        // The session ended, or the role was taken away: the page asks again who it is.
        if (problem.isRefusal) location.reload();
        this._problem = problem;
        this._isLoading = false;
      },
    });
    this._show();
  }

  _show() {
    const { _items: items, _words: words, _complete: complete } = this;
    const { audit } = words;
    if (this._csv !== null) this._csv.href = `/v1/audit.csv${search(this._query())}`;
    const said = this._isLoading ? words.loading : audit.shown(items.length, complete);
    const more = complete || this._isLoading ? null : button(audit.more, () => this._load(), { data: { keep: "more" } });
    const isEmpty = items.length === 0 && complete;
    replace(
      this._body,
      items.length > 0 ? this._table() : isEmpty ? nothingToShow("search", audit.none) : null,
      this._problem ? problemShown(this._problem, words, () => this._load()) : isEmpty ? null : element("div", { class: "audit-more line" }, element("p", { class: "faint", role: "status" }, said), more),
    );
  }

  _table() {
    const { columns, audit } = this._words;
    const shown = [
      [audit.time, ([row]) => this._format.time(row.at)],
      [audit.who, ([row]) => this._who(row)],
      [columns.action, (entries) => this._done(entries)],
      [audit.about, ([row]) => this._about(row), "long"],
      [audit.address, ([row]) => row.address || null],
      [audit.number, (entries) => numbersOf(entries), "mono"],
    ];
    return recordsTable(audit.title, shown, byAction(this._items));
  }

  /** What was done; of an action on a task, also how often it was sent and what became of it. */
  _done(entries) {
    const { actions, sent, statuses } = this._words.audit;
    const [{ action, decision }] = entries;
    const verb = decision ?? action;
    const count = entries.filter((each) => each.action === "action_sent").length;
    const more = [count > 0 ? sent(count) : null, statuses[entries.at(-1).status]].filter(Boolean).join(" · ");
    return withDetail(element("bdi", {}, Object.hasOwn(actions, verb) ? actions[verb] : verb), more);
  }

  _who({ corp_id: corp, actor, actor_name: name }) {
    const { audit } = this._words;
    if (corp === "") return actor === "" ? audit.thisMachine : [`${audit.program} `, element("bdi", {}, actor)];
    return this._person(`${corp}/${actor}`, PSEUDONYM.test(actor) ? audit.erased : name, actor);
  }

  _about({ action, action_id: its, subject, subject_name: name, instance_id: instance, title }) {
    const { audit } = this._words;
    if (title !== null) return element("bdi", { title: instance }, title);
    if (its !== null) return instance;
    if (action === "read" && subject.startsWith("waiting ")) return audit.waiting(subject.slice("waiting ".length));
    if (name !== null) return this._person(subject, name, subject);
    if (PSEUDONYM.test(subject)) return withDetail(audit.erased, subject);
    return subject === "everywhere" ? audit.everywhere : subject || null;
  }

  /** A button that shows this person's entries. */
  _person(person, name, id) {
    const click = () => this._filter({ ...this._filters, person });
    return withDetail(button(element("bdi", {}, name ?? id), click, { class: "audit-person" }), name === null ? "" : id);
  }
}

const withDetail = (text, detail) => (detail === "" ? text : [text, " ", element("bdi", { class: "faint" }, detail)]);

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

const root = document.querySelector("#page");
const api = pageApi();
const me = await signInAs(api, root, "audit", ({ auditor }) => auditor);
new AuditTrail(root, api, chosenWords(), me);
