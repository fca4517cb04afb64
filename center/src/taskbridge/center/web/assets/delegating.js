// Delegations: whom a person has decide for a time, and the tasks that others delegated to them.

import { Latest, outcome, pathOf, quietly } from "./api.js";
import { button, debounced, dialog, element, labelled, offer, replace } from "./dom.js";
import { Format } from "./format.js";
import { whileVisible } from "./page-head.js";
import { colleaguePicker } from "./people-picker.js";
import { UNDER_WAY, sayProblem, statusLine } from "./states.js";

const AGAIN_MS = 60_000;
const SOON_MS = 300;
const STATE_MS = 2000;

/** Pending tasks of others. Emits "change". */
export class Delegated extends EventTarget {
  constructor(api, actions) {
    super();
    this._api = api;
    this._actions = actions;
    this.items = [];
    this._soon = debounced(() => this.load(), SOON_MS);
    actions.addEventListener("change", () => {
      if (!this._again && actions.any) this._again = whileVisible(() => this.load(), AGAIN_MS);
      else if (this.items.length > 0) this._soon();
    });
  }

  async load() {
    const found = await quietly(this._api.get(pathOf(this._actions.person, "delegated-tasks")));
    if (found === null) return;
    this.items = found.items;
    this.dispatchEvent(new CustomEvent("change"));
  }
}

/** Shows the person's own delegations, ends them, and adds one. `apps` are those whose tasks they know, as [type, name]. */
export function delegationDialog(api, person, words, apps) {
  const format = new Format(words.tag);
  const { delegating } = words;
  const said = statusLine();
  const looking = new Latest();
  const later = debounced(again, STATE_MS);
  const list = element("ul", { class: "delegations" });
  const agents = element("section", { "aria-label": delegating.atYida });
  const chosen = element("p", { class: "delegate" });
  const picker = element("div", { class: "deciding-picker" });
  const [first, last] = [0, 1].map(() => element("input", { type: "date", required: true }));
  const app = element("select");
  const atYida = element("input", { type: "checkbox" });
  const mayBeAtYida = labelled(delegating.alsoAtYida, atYida, { class: "line at-yida", hidden: true });
  let delegate = null;

  const form = element(
    "form",
    { class: "delegating stack", on: { input: limit, submit: (event) => (event.preventDefault(), send()) } },
    chosen,
    picker,
    element("div", { class: "line" }, labelled(delegating.from, first), labelled(delegating.until, last), labelled(words.columns.app, app)),
    mayBeAtYida,
    element("div", { class: "line" }, element("button", { type: "submit", class: "primary-button" }, delegating.add), button(words.close, () => root.close())),
  );
  const root = dialog(delegating.title, {}, list, agents, form, said.root);

  function limit() {
    last.min = first.value;
    atYida.disabled = app.value !== "";
    if (atYida.disabled) atYida.checked = false;
  }

  function choose(found) {
    delegate = found;
    chosen.textContent = found === null ? "" : delegating.to(found.name || found.user_id);
    said.say("");
  }

  /** The end is the first moment after the last day. */
  const days = (starts, ends) => `${format.day(starts)} – ${format.day(new Date(Date.parse(ends) - 1).toISOString())}`;
  const row = (parts, ...more) => element("li", { class: "line delegation" }, element("span", {}, ...parts.filter(Boolean).flatMap((part, index) => [index > 0 ? " · " : "", element("bdi", {}, part)])), ...more);

  const why = ({ detail }) => delegating.reasons[detail] ?? words.acting.reasons[detail] ?? detail ?? words.acting.noReason;

  /** What became of an agent at Yida: `[when it is done, while it is under way, why not]`. */
  const became = (state, done, busy, not) => (state.status === "DONE" ? done : UNDER_WAY.has(state.status) ? busy : not(why(state)));

  function show({ items, may_be_at_yida: may, ended_at_yida: ended }) {
    const states = [...items.map(({ at_yida: state }) => state).filter(Boolean), ...ended];
    if (states.some(({ status }) => UNDER_WAY.has(status))) later();
    else later.cancel();
    mayBeAtYida.hidden = !may;
    const names = new Map(apps());
    const own = ({ delegation_id: id, delegate: { user_id: user, name }, at_yida: state, app_type: type, starts_at: starts, ends_at: ends }) => {
      const there = state && became(state, delegating.isAtYida, delegating.toYida, delegating.notAtYida);
      const end = button(delegating.end, () => attempt(api.send("DELETE", pathOf(person, `delegations/${encodeURIComponent(id)}`))), { "aria-label": `${delegating.end}: ${name || user}`, data: { keep: id } });
      return row([name || user, days(starts, ends), type === null ? words.allApps : (names.get(type) ?? type), there], end);
    };
    const over = (state) => {
      const who = state.delegate.name || state.delegate.user_id;
      const text = became(state, null, delegating.fromYida(who), (reason) => delegating.staysAtYida(who, reason));
      return text && row([text]);
    };
    replace(list, ...(items.length > 0 ? items.map(own) : [element("li", { class: "faint" }, delegating.none)]), ...ended.map(over).filter(Boolean));
  }

  /** Of what is under way, while the dialog is open. */
  function again() {
    return looking.run((signal) => api.get(pathOf(person, "delegations"), {}, signal), {
      found: (found) => root.open && show(found),
      failed: () => root.open && later(),
    });
  }

  async function showAgents() {
    const found = await quietly(api.get(pathOf(person, "yida-agents")));
    const agent = ({ agent, principal, is_for_all: isForAll, starts_at: starts, ends_at: ends }) => {
      const isMine = principal.user_id === person.userId;
      const { user_id: user, name } = isMine ? agent : principal;
      const who = (isMine ? delegating.actsForYou : delegating.youActFor)(name || user);
      return row([who, starts && ends ? `${format.day(starts)} – ${format.day(ends)}` : "", isForAll ? words.allApps : delegating.someForms]);
    };
    const shown = found === null ? element("p", { class: "faint" }, delegating.notRead) : element("ul", {}, ...found.items.map(agent));
    replace(agents, ...(found?.items.length === 0 ? [] : [element("h3", {}, delegating.atYida), shown]));
  }

  function clear() {
    choose(null);
    const today = new Date(Date.now() - new Date().getTimezoneOffset() * 60_000).toISOString().slice(0, 10);
    first.value = last.value = last.min = today;
    app.value = "";
    atYida.checked = false;
    limit();
  }

  async function send() {
    if (delegate === null) {
      said.say(delegating.choose);
      return;
    }
    const from = new Date(`${first.value}T00:00`);
    const until = new Date(`${last.value}T00:00`);
    until.setDate(until.getDate() + 1);
    const wanted = { delegate_id: delegate.user_id, app_type: app.value || null, starts_at: from.toISOString(), ends_at: until.toISOString(), at_yida: atYida.checked };
    if (await attempt(api.send("POST", pathOf(person, "delegations"), wanted))) clear();
  }

  /** Shows the delegations that an answer has; resolves with whether it came. */
  async function attempt(answer) {
    // Not at the end: by then there may be a newer message.
    said.say("");
    // It has a newer answer.
    looking.cancel();
    const [found, problem] = await outcome(answer);
    if (problem === null) show(found);
    else {
      said.say(problem.status === 400 ? problem.message : sayProblem(problem, words).join(": "));
      later();
    }
    return problem === null;
  }

  async function open() {
    root.showModal();
    offer(app, [["", words.allApps], ...apps()]);
    clear();
    showAgents();
    await attempt(api.get(pathOf(person, "delegations")));
    replace(picker, (await colleaguePicker(api, person, words, choose)) ?? element("p", { class: "faint" }, words.acting.nobody));
  }

  return { root, open };
}
