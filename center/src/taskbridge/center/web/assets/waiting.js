// What waits in an organisation: by process and by person, for operators and the owners of apps.

import { Latest } from "./api.js";
import { Apps } from "./apps.js";
import { button, element, labelled, offer, ownLink, recordsTable, replace } from "./dom.js";
import { Format } from "./format.js";
import { noneShown, panel, panelPage, whileVisible } from "./page-head.js";
import { insist, pageApi, whoIsAsking } from "./sign-in.js";
import { nothingToShow, problemShown, statusShown } from "./states.js";
import { chosenWords } from "./words.js";

const EVERY_MS = 60_000;

class Waiting {
  /** `corps` are those to choose from. */
  constructor(root, api, words, me, corps) {
    this._api = api;
    this._words = words;
    this._format = new Format(words.tag);
    this._loading = new Latest();
    const asked = new URLSearchParams(location.search);
    this._corps = corps;
    this._corp = asked.get("corp_id") ?? (corps.includes(me.corp_id) ? me.corp_id : corps[0]) ?? "";
    /** Those who own apps only see one at a time, and no lists of others. */
    this._own = me.mode === "sso" && !me.operator ? me.owned_apps : null;
    this._app = asked.get("app_type") ?? this._own?.[0] ?? null;
    this._process = asked.get("process_name");
    /** Apps stay to choose from while one of them is shown. */
    this._apps = new Apps(this._own ?? []);
    const select = (name, choose) => element("select", { name, on: { change: ({ target }) => choose(target.value) } });
    this._corpField = select("corp_id", (corp) => this._chooseCorp(corp));
    this._appField = select("app_type", (app) => this._goTo(app || null, null));
    const form = element(
      "form",
      { class: "find-form waiting-form" },
      this._own === null ? labelled(words.signIn.corp, this._corpField) : null,
      labelled(words.columns.app, this._appField),
    );
    const ownsNone = this._own?.length === 0;
    this._panels = element("div", { class: "panels", "aria-live": "polite" }, ownsNone ? nothingToShow("inbox", words.waiting.noApps) : null);
    panelPage(root, words, { title: words.waiting.title }, element("section", { class: "panel", hidden: ownsNone }, form), this._panels);
    this._offer();
    this._again = whileVisible(() => this._load(), EVERY_MS);
  }

  /** Which organisation and app: only what there is to choose. */
  _offer() {
    const corps = this._corps.includes(this._corp) || this._corp === "" ? this._corps : [this._corp, ...this._corps];
    const apps = this._apps.labels(this._words);
    offer(this._corpField, corps.map((corp) => [corp, corp]), this._corp);
    offer(this._appField, this._own === null ? [["", this._words.allApps], ...apps] : apps, this._app ?? "");
  }

  _chooseCorp(corp) {
    this._corp = corp;
    this._apps = new Apps();
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
        if (this._app !== null) this._apps.know(this._app);
        for (const { app_type: app, process_name: name } of found.processes) this._apps.know(app, name);
        this._offer();
        this._show(found);
      },
      failed: (problem) => replace(this._panels, problemShown(problem, this._words, () => this._again())),
    });
  }

  _show({ processes, people, complete }) {
    const { columns, waiting: words } = this._words;
    const name = ({ app_type: app, process_name: process }) => (this._process === null ? button(process ?? app, () => this._goTo(app, process ?? "")) : (process ?? app));
    replace(
      this._panels,
      this._process === null ? null : button(words.allProcesses, () => this._goTo(this._app, null)),
      this._panel(words.processes, [columns.process, name, "row"], processes),
      this._panel(words.people, [words.person, (person) => this._person(person), "row"], people),
      complete ? null : element("p", { class: "faint" }, words.more),
    );
  }

  /** A link to the person's tasks, for those who may see them. */
  _person({ user_id: user, name }) {
    const tasks = new URLSearchParams({ corp_id: this._corp, user_id: user });
    return this._own === null ? ownLink(`/?${tasks}#pending`, name ?? user, "quiet-button") : (name ?? user);
  }

  _panel(label, first, rows) {
    const { _format: format, _words: words } = this;
    const columns = [
      first,
      [words.statuses.PENDING, (row) => format.number(row.pending)],
      [words.due.overdue, ({ overdue }) => (overdue === 0 ? "0" : statusShown("OVERDUE", words, format.number(overdue)))],
      [words.waiting.oldest, ({ oldest_at: at }) => element("time", { datetime: at, title: format.full(at) }, format.ago(at))],
    ];
    return panel("", label, null, rows.length > 0 ? recordsTable(label, columns, rows) : noneShown(words.waiting.none));
  }
}

const root = document.querySelector("#page");
const api = pageApi();
const me = await whoIsAsking(api, root, chosenWords());
const words = chosenWords();
const { items: corps } = await insist(root, words, () => api.get("/v1/corps"));
new Waiting(root, api, words, me, corps);
