// Delegations: whom a person has decide for a time, and the tasks that others delegated to them.

import { Problem } from "./api.js";
import { debounced, element, replace } from "./dom.js";
import { Format } from "./format.js";
import { colleaguePicker } from "./people-picker.js";
import { sayProblem } from "./states.js";

const AGAIN_MS = 60_000;
const SOON_MS = 300;
const DAY_MS = 86_400_000;

/** Pending tasks of others. Emits "change". */
export class Delegated extends EventTarget {
  constructor(api, actions) {
    super();
    this._api = api;
    this._actions = actions;
    this.items = [];
    this._soon = debounced(() => this.load(), SOON_MS);
    actions.addEventListener("change", () => {
      if (!this._watch && actions.any) {
        this._watch = setInterval(() => this.load(), AGAIN_MS);
        this.load();
      } else if (this.items.length > 0) this._soon();
    });
  }

  /** Failing is no harm: they are missing until the next time. */
  async load() {
    try {
      this.items = (await this._api.delegated(this._actions.person)).items;
      this.dispatchEvent(new CustomEvent("change"));
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
    }
  }
}

/** Shows the person's own delegations, ends them, and adds one. `apps` are those whose tasks they know, as [type, name]. */
export function delegationDialog(api, person, words, apps) {
  const format = new Format(words.tag);
  const { delegating } = words;
  const said = element("p", { class: "deciding-said", role: "status", "aria-live": "polite" });
  const list = element("ul", { class: "delegations" });
  const atYida = element("section", { "aria-label": delegating.atYida });
  const chosen = element("p", { class: "delegate" });
  const picker = element("div", { class: "deciding-picker" });
  const day = (label) => element("label", { class: "deciding-label" }, element("span", {}, label), element("input", { type: "date", required: true }));
  const first = day(delegating.from);
  const last = day(delegating.until);
  const app = element("select", {});
  const add = element("button", { type: "submit", class: "primary-button" }, delegating.add);
  let delegate = null;

  const form = element(
    "form",
    { class: "delegating", on: { submit: (event) => (event.preventDefault(), send()) } },
    chosen,
    picker,
    element("div", { class: "deciding-buttons" }, first, last, element("label", { class: "deciding-label" }, element("span", {}, delegating.app), app)),
    element("div", { class: "deciding-buttons" }, add, element("button", { type: "button", class: "quiet-button", on: { click: () => dialog.close() } }, words.close)),
  );
  const dialog = element("dialog", { class: "several-dialog", "aria-label": delegating.title }, element("h2", {}, delegating.title), list, atYida, form, said);

  function choose(found) {
    delegate = found;
    chosen.textContent = delegating.to(found.name || found.user_id);
    say("");
  }

  function show({ items }) {
    replace(list, ...items.map(row));
    if (items.length === 0) replace(list, element("li", { class: "faint" }, delegating.none));
  }

  function row({ delegation_id: id, delegate: { user_id: user, name }, app_type: type, starts_at: starts, ends_at: ends }) {
    const what = type === null ? words.allApps : (new Map(apps()).get(type) ?? type);
    const end = element("button", { type: "button", class: "quiet-button", "aria-label": `${delegating.end}: ${name || user}`, on: { click: () => attempt(() => api.undelegate(person, id)) } }, delegating.end);
    // The end is the first moment after the last day.
    const days = `${format.day(starts)} – ${format.day(new Date(Date.parse(ends) - 1).toISOString())}`;
    return element("li", {}, element("span", {}, element("bdi", {}, name || user), " · ", days, " · ", element("bdi", {}, what)), end);
  }

  async function showAgents() {
    let shown;
    try {
      const { items } = await api.yidaAgents(person);
      if (items.length > 0) shown = element("ul", { class: "delegations" }, ...items.map(agentRow));
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      shown = element("p", { class: "faint" }, delegating.notRead);
    }
    replace(atYida, ...(shown ? [element("h3", {}, delegating.atYida), shown] : []));
  }

  function agentRow({ agent, principal, is_for_all: isForAll, starts_at: starts, ends_at: ends }) {
    const isMine = principal.user_id === person.userId;
    const { user_id: user, name } = isMine ? agent : principal;
    const who = (isMine ? delegating.actsForYou : delegating.youActFor)(name || user);
    const days = starts && ends ? `${format.day(starts)} – ${format.day(ends)}` : "";
    return element("li", {}, element("bdi", {}, [who, days, isForAll ? words.allApps : delegating.someForms].filter(Boolean).join(" · ")));
  }

  function clear() {
    delegate = null;
    chosen.textContent = "";
    const today = new Date(Date.now() - new Date().getTimezoneOffset() * 60_000).toISOString().slice(0, 10);
    for (const label of [first, last]) label.querySelector("input").value = today;
    app.value = "";
  }

  async function send() {
    if (delegate === null) {
      say(delegating.choose);
      return;
    }
    const days = [first, last].map((label) => new Date(`${label.querySelector("input").value}T00:00`).getTime());
    const wanted = { delegate_id: delegate.user_id, app_type: app.value || null, starts_at: new Date(days[0]).toISOString(), ends_at: new Date(days[1] + DAY_MS).toISOString() };
    if (days[1] < days[0]) say(delegating.wrongDays);
    else if (await attempt(() => api.delegate(person, wanted))) clear();
  }

  /** Resolves with whether it was done. */
  async function attempt(act) {
    // Not at the end: by then there may be a newer message.
    say("");
    try {
      show(await act());
      return true;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      say(error.status === 400 ? error.message : sayProblem(error, words).join(": "));
      return false;
    }
  }

  const say = (text) => {
    said.textContent = text;
  };

  async function open() {
    dialog.showModal();
    replace(app, element("option", { value: "" }, words.allApps), ...apps().map(([type, name]) => element("option", { value: type }, name)));
    clear();
    showAgents();
    await attempt(() => api.delegations(person));
    replace(picker, (await colleaguePicker(api, person, words, choose)) ?? element("p", { class: "faint" }, words.acting.nobody));
  }

  return { root: dialog, open };
}
