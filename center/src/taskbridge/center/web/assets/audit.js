// The auditors' page: who did what, newest first, filtered by what the address says.

import { Latest, search } from "./api.js";
import { button, element, labelled, offer, recordsTable, replace } from "./dom.js";
import { Format } from "./format.js";
import { panelPage } from "./page-head.js";
import { pageApi, signInAs } from "./sign-in.js";
import { nothingToShow, problemShown } from "./states.js";
import { chosenWords } from "./words.js";

const PART = 100;
const PSEUDONYM = /^person-[0-9a-f]{16}$/;
const NO_FILTERS = { person: "", action: "", day: "" };

class AuditTrail {
  constructor(root, api, me) {
    this._root = root;
    this._api = api;
    this._me = me;
    const given = new URLSearchParams(location.search);
    this._filters = Object.fromEntries(Object.keys(NO_FILTERS).map((name) => [name, given.get(name) ?? ""]));
    this._items = [];
    this._complete = false;
    this._loading = new Latest();
  }

  start() {
    this.draw(chosenWords());
    this._load();
  }

  draw(words) {
    this._words = words;
    this._format = new Format(words.tag);
    const form = this._filterForm();
    this._body = element("div");
    const { title } = words.audit;
    const panel = element("section", { class: "panel audit", "aria-label": title }, form, this._body);
    panelPage(this._root, words, { title, onLanguage: (next) => this.draw(next) }, panel);
    this._show();
  }

  _filterForm() {
    const { audit } = this._words;
    const person = element("input", {
      type: "search",
      placeholder: this._me.corp_id === null ? null : audit.personHint,
      autocomplete: "off",
      spellcheck: "false",
      maxlength: "513",
      on: { input: () => person.setCustomValidity("") },
    });
    const action = offer(element("select"), Object.entries({ "": audit.allActions, ...audit.actions }));
    const day = element("input", { type: "date" });
    this._fields = { person, action, day };
    this._fillIn();
    // A program's token is in no link.
    this._csv = this._me.mode === "token" ? null : element("a", { class: "quiet-button", download: "audit.csv" }, audit.csv);
    const apply = (event) => {
      event.preventDefault();
      const whose = this._personOf(person.value.trim());
      person.setCustomValidity(whose === null ? audit.wrongPerson : "");
      if (form.reportValidity()) this._filter({ person: whose, action: action.value, day: day.value });
    };
    const form = element(
      "form",
      { class: "find-form", role: "search", "aria-label": audit.filters, on: { change: apply, submit: apply } },
      labelled(audit.person, person),
      labelled(audit.action, action),
      labelled(audit.day, day),
      button(audit.clear, () => this._filter(NO_FILTERS)),
      this._csv,
    );
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
    history.replaceState(null, "", location.pathname + search(filters));
    this._fillIn();
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
    const { columns, title } = this._words.audit;
    const shown = [
      [columns.at, ([row]) => this._format.time(row.at)],
      [columns.who, ([row]) => this._who(row)],
      [columns.action, (entries) => this._done(entries)],
      [columns.about, ([row]) => this._about(row), "long"],
      [columns.address, ([row]) => row.address || null],
      [columns.number, (entries) => numbersOf(entries), "mono"],
    ];
    return recordsTable(title, shown, byAction(this._items));
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

async function main() {
  const root = document.querySelector("#page");
  const api = pageApi();
  const words = chosenWords();
  const me = await signInAs(api, root, words, ({ auditor }) => auditor, words.audit.signIn);
  new AuditTrail(root, api, me).start();
}

main();
