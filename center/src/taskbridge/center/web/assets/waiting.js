// What waits in an organisation: by process and by person, for operators and the owners of apps.

import { Problem } from "./api.js";
import { element, icon, replace, scrollingTable } from "./dom.js";
import { Format } from "./format.js";
import { ownLink, pageHead } from "./page-head.js";
import { pageApi, whoIsAsking } from "./sign-in.js";
import { nothingToShow, problemShown } from "./states.js";
import { chosenWords } from "./words.js";

const EVERY_MS = 60_000;
/** Whose names stand for an app, at most. */
const PROCESSES = 3;

class Waiting {
  /** `corps` are those to choose from. */
  constructor(root, api, me, corps) {
    this._root = root;
    this._api = api;
    this._found = null;
    const asked = new URLSearchParams(location.search);
    this._corps = corps;
    this._corp = asked.get("corp_id") ?? (corps.includes(me.corp_id) ? me.corp_id : corps[0]) ?? "";
    /** Those who own apps only see one at a time, and no lists of others. */
    this._own = me.mode === "sso" && !me.operator ? me.owned_apps : null;
    this._app = asked.get("app_type") ?? this._own?.[0] ?? null;
    this._process = asked.get("process_name");
    /** By their ids: processes of the apps that were found. */
    this._apps = new Map((this._own ?? []).map((app) => [app, new Set()]));
  }

  start() {
    this.draw(chosenWords());
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this._load());
    this._load();
  }

  draw(words) {
    this._words = words;
    this._format = new Format(words.tag);
    document.title = `${words.waiting.title} · taskbridge`;
    const head = pageHead(words, { title: words.waiting.title, other: ownLink("/", words.tasks), onLanguage: (next) => this.draw(next) });
    this._form = element("form", { class: "find-form waiting-form" });
    this._panels = element("div", { class: "panels", "aria-live": "polite" });
    replace(this._root, head, element("main", { class: "operation" }, element("section", { class: "panel", hidden: this._own?.length === 0 }, this._form), this._panels));
    this._drawForm();
    this._show();
  }

  /** Which organisation and app: only what there is to choose. */
  _drawForm() {
    const { waiting: words, signIn } = this._words;
    const own = this._own !== null;
    const corps = this._corps.includes(this._corp) || this._corp === "" ? this._corps : [this._corp, ...this._corps];
    const apps = [...this._apps].map(([app, processes]) => [app, [...processes].slice(0, PROCESSES).join(this._words.listComma) || app]);
    if (!own) apps.unshift(["", words.allApps]);
    const focused = document.activeElement?.name;
    replace(
      this._form,
      own ? null : choice("corp_id", signIn.corp, corps.map((corp) => [corp, corp]), this._corp, (corp) => this._choose(corp)),
      choice("app_type", words.app, apps, this._app ?? "", (app) => this._goTo(app || null, null)),
    );
    if (focused) this._form.querySelector(`[name="${focused}"]`)?.focus();
  }

  _choose(corp) {
    this._corp = corp;
    this._apps.clear();
    this._goTo(null, null);
  }

  _goTo(app, process) {
    [this._app, this._process] = [app, process];
    const given = Object.entries({ corp_id: this._corp, app_type: app, process_name: process }).filter(([, value]) => value !== null);
    history.replaceState(null, "", `?${new URLSearchParams(given)}`);
    this._drawForm();
    this._load();
  }

  async _load() {
    clearTimeout(this._next);
    this._loading?.abort();
    const loading = new AbortController();
    this._loading = loading;
    if (this._corp === "" || (this._own !== null && this._app === null)) return;
    if (!this._corps.includes(this._corp)) {
      replace(this._panels, nothingToShow("search", this._words.waiting.unknownCorp));
      return;
    }
    try {
      const query = { app_type: this._app, process_name: this._process };
      const found = await this._api.waiting(this._corp, query, loading.signal);
      if (loading.signal.aborted) return;
      this._found = found;
      this._learnApps(found.processes);
      this._show();
    } catch (error) {
      if (loading.signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      this._found = null;
      replace(this._panels, problemShown(error, this._words, () => this._load()));
    }
    // Nobody reads a hidden page: it goes on when it is looked at.
    if (document.visibilityState === "visible") this._next = setTimeout(() => this._load(), EVERY_MS);
  }

  /** Apps stay to choose from while one of them is shown. */
  _learnApps(processes) {
    const before = JSON.stringify([...this._apps.keys()]);
    if (this._app !== null && !this._apps.has(this._app)) this._apps.set(this._app, new Set());
    for (const { app_type: app, process_name: name } of processes) {
      if (!this._apps.has(app)) this._apps.set(app, new Set());
      if (name !== null) this._apps.get(app).add(name);
    }
    if (JSON.stringify([...this._apps.keys()]) !== before || this._own !== null) this._drawForm();
  }

  _show() {
    const { _found: found, _words: { waiting: words } } = this;
    if (found === null) {
      replace(this._panels, this._own?.length === 0 ? nothingToShow("inbox", words.noApps) : null);
      return;
    }
    const name = ({ app_type: app, process_name: process }) => {
      if (this._process !== null) return process ?? app;
      return element("button", { type: "button", class: "quiet-button", on: { click: () => this._goTo(app, process ?? "") } }, process ?? app);
    };
    const processes = this._table(words.processes, words.process, found.processes, name);
    const people = this._table(words.people, words.person, found.people, (person) => this._person(person));
    const all = this._process === null ? null : element("button", { type: "button", class: "quiet-button", on: { click: () => this._goTo(this._app, null) } }, words.allProcesses);
    replace(this._panels, all, processes, people, found.complete ? null : element("p", { class: "faint" }, words.more));
  }

  /** A link to the person's tasks, for those who may see them. */
  _person({ user_id: user, name }) {
    if (this._own !== null) return name ?? user;
    const link = element("a", { class: "quiet-button" }, name ?? user);
    link.href = `/?${new URLSearchParams({ corp_id: this._corp, user_id: user })}#pending`;
    return link;
  }

  _table(label, first, rows, name) {
    const { waiting: words } = this._words;
    const heading = (text) => element("th", { scope: "col" }, text);
    const cell = (heading, shown) => element("td", { data: { heading } }, element("span", {}, shown));
    const headings = [first, words.pending, words.overdue, words.oldest].map(heading);
    const row = (each) =>
      element(
        "tr",
        {},
        element("th", { scope: "row" }, element("bdi", {}, name(each))),
        cell(words.pending, this._format.number(each.pending)),
        cell(words.overdue, each.overdue === 0 ? "0" : overdueShown(this._format.number(each.overdue))),
        cell(words.oldest, element("time", { datetime: each.oldest_at, title: this._format.full(each.oldest_at) }, this._format.ago(each.oldest_at))),
      );
    const shown = rows.length === 0 ? element("p", { class: "panel-none" }, icon("check"), words.none) : scrollingTable(label, headings, rows.map(row), { kind: "records" });
    return element("section", { class: "panel" }, element("header", {}, element("h2", {}, label)), shown);
  }
}

function overdueShown(number) {
  return element("span", { class: "status", data: { status: "OVERDUE" } }, icon("warning"), number);
}

/** `choices` are values and their texts. */
function choice(name, label, choices, value, choose) {
  const options = choices.map(([each, text]) => element("option", { value: each }, text));
  const select = element("select", { name, on: { change: () => choose(select.value) } }, ...options);
  select.value = value;
  return element("label", {}, element("span", {}, label), select);
}

async function main() {
  const root = document.querySelector("#page");
  const api = pageApi();
  const me = await whoIsAsking(api, root, chosenWords());
  new Waiting(root, api, me, await corpsOf(api, root)).start();
}

/** Which organisations there are to choose from; asks again where the service cannot say. */
async function corpsOf(api, root) {
  for (;;) {
    try {
      return (await api.corps()).items;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      await new Promise((resolve) => {
        replace(root, element("main", { class: "operation" }, problemShown(error, chosenWords(), resolve)));
      });
    }
  }
}

main();
