// What waits in an organisation: by process and by person, for operators and the owners of apps.

import { Problem } from "./api.js";
import { element, icon, replace, scrollingTable } from "./dom.js";
import { Format } from "./format.js";
import { ownLink, pageHead } from "./page-head.js";
import { pageApi, whoIsAsking } from "./sign-in.js";
import { nothingToShow, problemShown } from "./states.js";
import { chosenWords } from "./words.js";

const EVERY_MS = 60_000;

class Waiting {
  constructor(root, api, me) {
    this._root = root;
    this._api = api;
    this._me = me;
    this._found = null;
    const asked = new URLSearchParams(location.search);
    const corps = me.corps.filter((corp) => corp !== "*");
    this._corp = asked.get("corp_id") ?? me.corp_id ?? corps[0] ?? "";
    /** Those who own apps only see one at a time. */
    this._apps = me.mode === "sso" && !me.operator ? me.owned_apps : null;
    this._app = asked.get("app_type") ?? this._apps?.[0] ?? null;
    this._process = asked.get("process_name");
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
    this._panels = element("div", { class: "panels", "aria-live": "polite" });
    replace(this._root, head, element("main", { class: "operation" }, this._form(), this._panels));
    this._show();
  }

  /** Which organisation and app: what there is to choose. */
  _form() {
    const { waiting: words, signIn } = this._words;
    const fields = [];
    if (this._me.mode !== "sso" || this._me.operator) fields.push(this._field("corp_id", signIn.corp, this._corp));
    fields.push(this._apps === null ? this._field("app_type", words.app, this._app ?? "") : choice("app_type", this._words.detail.app, this._apps, this._app));
    const form = element("form", { class: "find-form waiting-form" }, ...fields, element("button", { type: "submit", class: "primary-button" }, words.show));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const given = new FormData(form);
      this._corp = (given.get("corp_id") ?? this._corp).trim();
      this._goTo(given.get("app_type")?.trim() || null, null);
    });
    return element("section", { class: "panel" }, form);
  }

  _field(name, label, value) {
    const input = element("input", { name, autocomplete: "off", spellcheck: "false", maxlength: "256", required: name === "corp_id" });
    input.value = value;
    return element("label", {}, element("span", {}, label), input);
  }

  _goTo(app, process) {
    [this._app, this._process] = [app, process];
    const given = Object.entries({ corp_id: this._corp, app_type: app, process_name: process }).filter(([, value]) => value !== null);
    history.replaceState(null, "", `?${new URLSearchParams(given)}`);
    this._root.querySelector("[name=app_type]").value = app ?? "";
    this._load();
  }

  async _load() {
    clearTimeout(this._next);
    this._loading?.abort();
    const loading = new AbortController();
    this._loading = loading;
    if (this._corp === "" || (this._apps !== null && this._app === null)) return;
    try {
      const query = { app_type: this._app, process_name: this._process };
      const found = await this._api.waiting(this._corp, query, loading.signal);
      if (loading.signal.aborted) return;
      this._found = found;
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

  _show() {
    const { _found: found, _words: { waiting: words } } = this;
    if (found === null) {
      replace(this._panels, this._apps?.length === 0 ? nothingToShow("inbox", words.noApps) : null);
      return;
    }
    const name = ({ app_type: app, process_name: process }) => {
      if (this._process !== null) return process ?? app;
      return element("button", { type: "button", class: "quiet-button", on: { click: () => this._goTo(app, process ?? "") } }, process ?? app);
    };
    const processes = this._table(words.processes, words.process, found.processes, name);
    const people = this._table(words.people, words.person, found.people, ({ user_id: user, name: known }) => known ?? user);
    const all = this._process === null ? null : element("button", { type: "button", class: "quiet-button", on: { click: () => this._goTo(this._app, null) } }, words.allProcesses);
    replace(this._panels, all, processes, people, found.complete ? null : element("p", { class: "faint" }, words.more));
  }

  _table(label, first, rows, name) {
    const { waiting: words } = this._words;
    const heading = (text) => element("th", { scope: "col" }, text);
    const headings = [first, words.pending, words.overdue, words.oldest].map(heading);
    const row = (each) =>
      element(
        "tr",
        {},
        element("th", { scope: "row" }, element("bdi", {}, name(each))),
        element("td", {}, this._format.number(each.pending)),
        element("td", {}, each.overdue === 0 ? "0" : overdueShown(this._format.number(each.overdue))),
        element("td", {}, element("time", { datetime: each.oldest_at, title: this._format.full(each.oldest_at) }, this._format.ago(each.oldest_at))),
      );
    const shown = rows.length === 0 ? element("p", { class: "panel-none" }, icon("check"), words.none) : scrollingTable(label, headings, rows.map(row), { kind: "records" });
    return element("section", { class: "panel" }, element("header", {}, element("h2", {}, label)), shown);
  }
}

function overdueShown(number) {
  return element("span", { class: "status", data: { status: "OVERDUE" } }, icon("warning"), number);
}

function choice(name, label, choices, value) {
  const select = element("select", { name }, ...choices.map((each) => element("option", { value: each }, each)));
  select.value = value ?? "";
  return element("label", {}, element("span", {}, label), select);
}

async function main() {
  const root = document.querySelector("#page");
  const api = pageApi();
  new Waiting(root, api, await whoIsAsking(api, root, chosenWords())).start();
}

main();
