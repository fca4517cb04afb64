// What waits in an organisation: by process and by person, for operators and the owners of apps.

import { Latest, Problem } from "./api.js";
import { button, element, labelled, offer, ownLink, recordsTable, replace } from "./dom.js";
import { Format } from "./format.js";
import { noneShown, panel, panelPage, whileVisible } from "./page-head.js";
import { pageApi, whoIsAsking } from "./sign-in.js";
import { nothingToShow, problemShown, statusShown } from "./states.js";
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
    this._loading = new Latest();
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
    this._again = whileVisible(() => this._load(), EVERY_MS);
  }

  draw(words) {
    this._words = words;
    this._format = new Format(words.tag);
    const select = (name, choose) => element("select", { name, on: { change: ({ target }) => choose(target.value) } });
    this._corpField = select("corp_id", (corp) => this._chooseCorp(corp));
    this._appField = select("app_type", (app) => this._goTo(app || null, null));
    const form = element(
      "form",
      { class: "find-form waiting-form" },
      this._own === null ? labelled(words.signIn.corp, this._corpField) : null,
      labelled(words.waiting.app, this._appField),
    );
    this._panels = element("div", { class: "panels", "aria-live": "polite" });
    const frame = { title: words.waiting.title, onLanguage: (next) => this.draw(next) };
    panelPage(this._root, words, frame, element("section", { class: "panel", hidden: this._own?.length === 0 }, form), this._panels);
    this._offer();
    this._show();
  }

  /** Which organisation and app: only what there is to choose. */
  _offer() {
    const { waiting: words, listComma: comma } = this._words;
    const corps = this._corps.includes(this._corp) || this._corp === "" ? this._corps : [this._corp, ...this._corps];
    const apps = [...this._apps].map(([app, processes]) => [app, [...processes].slice(0, PROCESSES).join(comma) || app]);
    offer(this._corpField, corps.map((corp) => [corp, corp]), this._corp);
    offer(this._appField, this._own === null ? [["", words.allApps], ...apps] : apps, this._app ?? "");
  }

  _chooseCorp(corp) {
    this._corp = corp;
    this._apps.clear();
    this._goTo(null, null);
  }

  _goTo(app, process) {
    [this._app, this._process] = [app, process];
    history.replaceState(null, "", `?${new URLSearchParams([["corp_id", this._corp], ...this._narrowed])}`);
    this._offer();
    this._again();
  }

  /** As a query. An empty name of a process counts: that of tasks without one. */
  get _narrowed() {
    const given = Object.entries({ app_type: this._app, process_name: this._process });
    return new URLSearchParams(given.filter(([, value]) => value !== null));
  }

  async _load() {
    if (this._corp === "" || (this._own !== null && this._app === null)) return;
    if (!this._corps.includes(this._corp)) {
      replace(this._panels, nothingToShow("search", this._words.waiting.unknownCorp));
      return;
    }
    const path = `/v1/corps/${encodeURIComponent(this._corp)}/waiting?${this._narrowed}`;
    await this._loading.run((signal) => this._api.get(path, {}, signal), {
      found: (found) => {
        this._found = found;
        this._learnApps(found.processes);
        this._show();
      },
      failed: (problem) => {
        this._found = null;
        replace(this._panels, problemShown(problem, this._words, () => this._again()));
      },
    });
  }

  /** Apps stay to choose from while one of them is shown. */
  _learnApps(processes) {
    if (this._app !== null && !this._apps.has(this._app)) this._apps.set(this._app, new Set());
    for (const { app_type: app, process_name: name } of processes) {
      if (!this._apps.has(app)) this._apps.set(app, new Set());
      if (name !== null) this._apps.get(app).add(name);
    }
    this._offer();
  }

  _show() {
    const { _found: found, _words: { waiting: words } } = this;
    if (found === null) {
      replace(this._panels, this._own?.length === 0 ? nothingToShow("inbox", words.noApps) : null);
      return;
    }
    const name = ({ app_type: app, process_name: process }) => (this._process === null ? button(process ?? app, () => this._goTo(app, process ?? "")) : (process ?? app));
    replace(
      this._panels,
      this._process === null ? null : button(words.allProcesses, () => this._goTo(this._app, null)),
      this._panel(words.processes, [words.process, name, "row"], found.processes),
      this._panel(words.people, [words.person, (person) => this._person(person), "row"], found.people),
      found.complete ? null : element("p", { class: "faint" }, words.more),
    );
  }

  /** A link to the person's tasks, for those who may see them. */
  _person({ user_id: user, name }) {
    const tasks = new URLSearchParams({ corp_id: this._corp, user_id: user });
    return this._own === null ? ownLink(`/?${tasks}#pending`, name ?? user, "quiet-button") : (name ?? user);
  }

  _panel(label, first, rows) {
    const { _format: format, _words: { waiting: words } } = this;
    const columns = [
      first,
      [words.pending, (row) => format.number(row.pending)],
      [words.overdue, ({ overdue }) => (overdue === 0 ? "0" : statusShown("OVERDUE", this._words, format.number(overdue)))],
      [words.oldest, ({ oldest_at: at }) => element("time", { datetime: at, title: format.full(at) }, format.ago(at))],
    ];
    return panel("", label, null, rows.length > 0 ? recordsTable(label, columns, rows) : noneShown(words.none));
  }
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
      return (await api.get("/v1/corps")).items;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      await new Promise((resolve) => {
        replace(root, element("main", { class: "operation" }, problemShown(error, chosenWords(), resolve)));
      });
    }
  }
}

main();
