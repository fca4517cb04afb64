// Where a person decides: a panel for one task, and a dialog for several at once.

import { taskKey } from "./actions.js";
import { Problem } from "./api.js";
import { button, closing, dialog, element, labelled, offer, replace } from "./dom.js";
import { colleaguePicker } from "./people-picker.js";
import { sayProblem } from "./states.js";

const REMARK_MAX = 1000;
const NEEDS_REMARK = new Set(["refuse", "return"]);

/** A sentence about an action and whether it is bad news; null where there is nothing to say. */
function actionSaid(action, words) {
  const { acting } = words;
  if (action === undefined || action.status === "DONE") return null;
  const what = acting.names[action.action];
  if (action.status === "UNCLEAR") return { text: acting.unclear(what), bad: false };
  if (action.status === "OVERTAKEN") return { text: acting.overtaken(what), bad: true };
  if (action.status === "REFUSED" || action.status === "FAILED") {
    return { text: acting.failed(what, acting.reasons[action.detail] ?? action.detail ?? acting.noReason), bad: true };
  }
  const isSent = action.status === "ACCEPTED" || action.detail !== "unsent";
  return { text: isSent ? acting.requested(what) : acting.unsent(what), bad: false };
}

/** A sentence about why nothing may be decided; null where something may be. */
const whyNotSaid = (reason, { acting }) => (reason === null ? null : { text: acting.reasons[reason], bad: false });

/** The panel of one item. It stays the same element while its item does, so that nothing that was typed is lost. */
export class DecidingPanel {
  constructor(api, actions, words) {
    this._api = api;
    this._actions = actions;
    this._words = words;
    this._said = element("p", { class: "deciding-said", role: "status", "aria-live": "polite" });
    this._remark = remarkField(words);
    this._step = element("select");
    this._steps = labelled(words.acting.returnTo, this._step, { hidden: true });
    this._buttons = element("div", { class: "deciding-buttons line" });
    this._picker = element("div", { class: "deciding-picker" });
    this.root = element("section", { class: "deciding", "aria-label": words.acting.title }, this._remark.label, this._steps, this._buttons, this._picker, this._said);
  }

  /** `revision`: of the instance as it is shown. `isOpen`: the task still waits there. `steps`: names of earlier ones by their ids. */
  show(item, { revision, isOpen, steps }) {
    Object.assign(this, { item, revision, isOpen });
    offer(this._step, [["", this._words.acting.originator], ...steps]);
    this.render();
  }

  focus() {
    this._remark.field.focus();
  }

  get isPossible() {
    return !this._remark.label.hidden;
  }

  render() {
    const possible = this.isOpen ? this._actions.possible(this.item) : [];
    const underWay = this._actions.isUnderWay(this.item);
    const said = this._problem ?? actionSaid(this._actions.of(this.item), this._words) ?? whyNotSaid(this.isOpen ? this._actions.whyNot(this.item) : null, this._words);
    this.root.hidden = possible.length === 0 && said === null;
    this._steps.hidden = underWay || !possible.includes("return") || this._step.options.length < 2;
    this._remark.label.hidden = underWay || possible.length === 0 || possible.includes("withdraw");
    const shown = underWay ? "" : possible.join();
    if (shown !== this._shown) {
      this._shown = shown;
      replace(this._buttons, ...(underWay ? [] : possible.map((action) => this._button(action))));
      replace(this._picker);
    }
    if (this._said.textContent !== (said?.text ?? "")) this._said.textContent = said?.text ?? "";
    this._said.toggleAttribute("data-bad", said?.bad ?? false);
  }

  _button(action) {
    const click = { hand_over: () => this._handOver(), withdraw: () => this._withdraw() }[action] ?? (() => this._act(action));
    return button(this._words.acting.names[action], click, { class: kindOf(action), data: { action, keep: `act-${action}` } });
  }

  async _handOver() {
    const { person } = this._actions;
    const hand = async ({ name, user_id: user }) => {
      if (await confirmed(this._words, "hand_over", this.item, name || user)) await this._act("hand_over", user);
    };
    const picker = await colleaguePicker(this._api, person, this._words, hand, this.item.on_behalf_of?.user_id ?? person.userId);
    replace(this._picker, picker ?? element("p", { class: "faint" }, this._words.acting.nobody));
    this._picker.querySelector("input")?.focus();
  }

  async _withdraw() {
    if (await confirmed(this._words, "withdraw", this.item)) await this._act("withdraw");
  }

  async _act(action, recipient = action === "return" ? this._step.value || null : null) {
    if (!this._remark.check(action)) return;
    const remark = action === "withdraw" ? "" : this._remark.field.value.trim();
    this._problem = await attempt(() => this._actions.act(action, [this.item], { remark, recipient, revision: this.revision }), this._words);
    if (this._problem === null) this._remark.field.value = "";
    this.render();
  }
}

const kindOf = (action) => (action === "agree" ? "primary-button" : "quiet-button");

/** Resolves with whether the person confirms what cannot be taken back: it is named, and the harmless way has the focus. */
function confirmed({ acting, untitled, cancel }, action, { title }, who = "") {
  const { promise, resolve } = Promise.withResolvers();
  const [question, consequence] = acting.confirm[action](who);
  const choice = (kind, text, value) => element("button", { class: kind, value, autofocus: value === "" }, text);
  const asked = dialog(
    question,
    { class: "small", on: { close: () => (asked.remove(), resolve(asked.returnValue === action)) } },
    element("p", {}, element("bdi", {}, title || untitled)),
    element("p", { class: "faint" }, consequence),
    element("form", { method: "dialog", class: "line" }, choice("quiet-button", cancel, ""), choice("primary-button", acting.names[action], action)),
  );
  document.body.append(asked);
  asked.showModal();
  return promise;
}

/** Decides several of these items at once. Each is chosen by hand: nothing is decided unseen. `show` shows one in full. */
export function severalDialog(actions, words, { title, items: itemsNow, show }) {
  const remark = remarkField(words);
  const list = element("ul", { class: "several", on: { change: () => begin() } });
  const said = element("p", { class: "deciding-said", role: "status", "aria-live": "polite" });
  const all = element("input", { type: "checkbox", on: { change: () => choose(all.checked) } });
  const boxes = new Map();
  /** What the last click was about. */
  let sent = [];

  function say(text, bad = false) {
    said.textContent = text;
    said.toggleAttribute("data-bad", bad);
  }

  function begin() {
    sent = [];
    say("");
  }

  /** It changes: some are refused at once, and others later. */
  function sum() {
    if (sent.length === 0) return;
    const failed = sent.filter((item) => actions.isNotCarriedOut(item)).length;
    say(words.acting.severalRequested(sent.length - failed, failed), failed > 0);
  }

  function choose(checked) {
    for (const box of boxes.values()) box.checked = checked && !box.disabled;
  }

  function render() {
    const items = itemsNow();
    const chosen = new Set([...boxes].filter(([, box]) => box.checked).map(([item]) => taskKey(item)));
    boxes.clear();
    replace(list, ...items.map((item) => row(item, chosen.has(taskKey(item)))));
    if (items.every((item) => actions.whyNot(item) !== null)) say(words.acting.noneLeft);
    else sum();
  }

  function row(item, checked) {
    const box = element("input", { type: "checkbox", disabled: actions.isUnderWay(item) || actions.possible(item).length === 0 });
    box.checked = checked && !box.disabled;
    boxes.set(item, box);
    const what = actionSaid(actions.of(item), words) ?? whyNotSaid(actions.whyNot(item), words);
    return element(
      "li",
      {},
      element(
        "div",
        { class: "line several-row" },
        element("label", {}, box, element("bdi", {}, item.title || words.untitled), element("bdi", { class: "faint" }, originatorOf(item))),
        item.on_behalf_of ? element("span", { class: "status" }, words.delegating.of(item.on_behalf_of.name || item.on_behalf_of.user_id)) : null,
        button(words.acting.details, () => (root.close(), show(item))),
      ),
      what === null ? null : element("p", { class: "deciding-said", "data-bad": what.bad }, what.text),
    );
  }

  async function act(action) {
    const items = [...boxes].filter(([, box]) => box.checked).map(([item]) => item);
    if (items.length === 0) {
      say(words.acting.chooseFirst);
      return;
    }
    if (!remark.check(action)) return;
    const problem = await attempt(() => actions.act(action, items, { remark: remark.field.value.trim() }), words);
    sent = items;
    if (problem === null) sum();
    else say(problem.text, true);
    choose(false);
    all.checked = false;
  }

  const deciding = (action) => button(words.acting.names[action], () => act(action), { class: kindOf(action), data: { action } });
  const root = dialog(
    title,
    {},
    element("label", { class: "several-all" }, all, words.acting.all),
    list,
    remark.label,
    element("div", { class: "line" }, deciding("agree"), deciding("refuse"), closing(words)),
    said,
  );
  const open = () => {
    begin();
    render();
    root.showModal();
  };
  return { root, open, render: () => root.open && render() };
}

const originatorOf = ({ originator }) => originator?.name ?? originator?.user_id ?? "";

function remarkField(words) {
  const field = element("textarea", { class: "deciding-remark", rows: "2", maxlength: String(REMARK_MAX), data: { keep: "remark" } });
  const check = (action) => {
    field.setCustomValidity(NEEDS_REMARK.has(action) && field.value.trim() === "" ? words.acting.remarkNeeded : "");
    return field.reportValidity();
  };
  return { label: labelled(words.acting.remark, field), field, check };
}

async function attempt(act, words) {
  try {
    await act();
    return null;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    return { text: sayProblem(error, words).join(": "), bad: true };
  }
}
