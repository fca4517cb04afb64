// Where a person decides: a panel for one task, and a dialog for several at once.

import { taskKey } from "./actions.js";
import { outcome } from "./api.js";
import { button, closing, dialog, drawList, element, labelled, offer, redraw, replace, sure } from "./dom.js";
import { colleaguePicker } from "./people-picker.js";
import { sayProblem, statusLine } from "./states.js";

const REMARK_MAX = 1000;
const NEEDS_REMARK = new Set(["refuse", "return"]);

/** A sentence about an action and whether it is bad news; null where there is nothing to say. */
export function actionSaid(action, words) {
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
export function decidingPanel(api, actions, words) {
  const { acting } = words;
  const said = statusLine();
  const remark = remarkField(words);
  const step = element("select");
  const steps = labelled(acting.returnTo, step, { hidden: true });
  const buttons = element("div", { class: "deciding-buttons line" });
  const picker = element("div", { class: "deciding-picker" });
  const root = element("section", { class: "deciding stack", "aria-label": acting.title }, remark.label, steps, buttons, picker, said.root);
  let item, revision, isOpen, form;
  let problem = null;

  /** `item`: what is decided. `revision`: of the instance as it is shown. `isOpen`: the task still waits there. `steps`: names of earlier ones by their ids. `form`: a CurrentForm. */
  function show(given) {
    ({ item, revision, isOpen, form } = given);
    offer(step, [["", acting.originator], ...given.steps]);
    render();
  }

  function render() {
    const possible = isOpen ? actions.possible(item) : [];
    const underWay = actions.isUnderWay(item);
    const shown = problem ?? actionSaid(actions.of(item), words) ?? whyNotSaid(isOpen ? actions.whyNot(item) : null, words);
    root.hidden = possible.length === 0 && shown === null;
    steps.hidden = underWay || !possible.includes("return") || step.options.length < 2;
    remark.label.hidden = underWay || possible.length === 0 || possible.includes("withdraw");
    const offered = underWay ? [] : possible;
    redraw(buttons, offered, () => {
      replace(picker);
      return offered.map(actionButton);
    });
    said.say(shown?.text ?? "", shown?.bad);
  }

  function actionButton(action) {
    const click = { hand_over: handOver, withdraw }[action] ?? (() => act(action));
    return button(acting.names[action], click, { class: kindOf(action), data: { action, keep: `act-${action}` } });
  }

  async function handOver() {
    const hand = async ({ name, user_id: user }) => {
      if (await confirmed(words, "hand_over", item, name || user)) await act("hand_over", user);
    };
    const people = await colleaguePicker(api, actions.person, words, hand, item.on_behalf_of?.user_id);
    replace(picker, people ?? element("p", { class: "faint" }, acting.nobody));
    picker.querySelector("input")?.focus();
  }

  async function withdraw() {
    if (await confirmed(words, "withdraw", item)) await act("withdraw");
  }

  async function act(action, recipient = action === "return" ? step.value || null : null) {
    if (!remark.check(action)) return;
    const [decided, shownRevision] = [item, revision];
    const unseen = await form.isUnseen();
    if (unseen === null) return;
    if (unseen) {
      problem = { text: acting.reasons.changed, bad: true };
      render();
      return;
    }
    const text = action === "withdraw" ? "" : remark.field.value.trim();
    const seen = { revision: shownRevision, form: form.found?.digest };
    problem = await attempt(actions.act(action, [decided], { remark: text, recipient, seen }), words);
    if (problem === null) remark.field.value = "";
    render();
  }

  /** Put the keyboard here, where anything can be decided. */
  const focus = () => remark.label.hidden || remark.field.focus();
  return {
    ...{ root, show, render, focus },
    get item() {
      return item;
    },
  };
}

const kindOf = (action) => (action === "agree" ? "primary-button" : "quiet-button");

/** As `sure`, of an action. */
export function confirmed(words, action, { title }, who = "") {
  const [question, consequence] = words.acting.confirm[action](who);
  return sure(words, question, element("p", {}, element("bdi", {}, title || words.untitled)), consequence, words.acting.names[action]);
}

/** Decides several of these items at once. Each is chosen by hand: nothing is decided unseen. `show` shows one in full. */
export function severalDialog(actions, words, { title, items: itemsNow, show }) {
  const remark = remarkField(words);
  const list = element("ul", { class: "several", on: { change: () => begin() } });
  const said = statusLine();
  const all = element("input", { type: "checkbox", on: { change: () => choose(all.checked) } });
  const boxes = () => [...list.querySelectorAll("input")];
  const chosen = () => new Set(boxes().filter(({ checked }) => checked).map(({ value }) => value));
  /** What the last click was about. */
  let sent = [];

  function begin() {
    sent = [];
    said.say("");
  }

  /** It changes: some are refused at once, and others later. */
  function sum() {
    if (sent.length === 0) return;
    const failed = sent.filter((item) => actions.isNotCarriedOut(item)).length;
    said.say(words.acting.severalRequested(sent.length - failed, failed), failed > 0);
  }

  function choose(checked) {
    for (const box of boxes()) box.checked = checked && !box.disabled;
  }

  function render() {
    const items = itemsNow();
    drawList(list, items, taskKey, drawRow);
    if (items.every((item) => actions.whyNot(item) !== null)) said.say(words.acting.noneLeft);
    else sum();
  }

  /** What did not change stays: a click or the keyboard may be on it. */
  function drawRow(item, row = element("li")) {
    const disabled = actions.isUnderWay(item) || actions.possible(item).length === 0;
    const what = actionSaid(actions.of(item), words) ?? whyNotSaid(actions.whyNot(item), words);
    const checked = !disabled && (row.querySelector("input")?.checked ?? false);
    redraw(row, [item, disabled, what], () => parts(item, { disabled, checked }, what));
    return row;
  }

  function parts(item, state, what) {
    const box = element("input", { type: "checkbox", value: taskKey(item), data: { keep: "box" }, ...state });
    return [
      element(
        "div",
        { class: "line several-row" },
        element("label", { class: "strip" }, box, element("bdi", {}, item.title || words.untitled), element("bdi", { class: "faint" }, originatorOf(item))),
        item.on_behalf_of ? element("span", { class: "status" }, words.delegating.of(item.on_behalf_of.name || item.on_behalf_of.user_id)) : null,
        button(words.acting.details, () => (root.close(), show(item))),
      ),
      what === null ? null : element("p", { class: "deciding-said", "data-bad": what.bad }, what.text),
    ];
  }

  async function act(action) {
    const before = chosen();
    const items = itemsNow().filter((item) => before.has(taskKey(item)));
    if (items.length === 0) {
      said.say(words.acting.chooseFirst);
      return;
    }
    if (!remark.check(action)) return;
    const problem = await attempt(actions.act(action, items, { remark: remark.field.value.trim() }), words);
    sent = items;
    if (problem === null) sum();
    else said.say(problem.text, true);
    choose(false);
    all.checked = false;
  }

  const deciding = (action) => button(words.acting.names[action], () => act(action), { class: kindOf(action), data: { action } });
  const root = dialog(
    title,
    {},
    element("label", { class: "several-all line" }, all, words.acting.all),
    list,
    remark.label,
    element("div", { class: "line" }, deciding("agree"), deciding("refuse"), closing(words)),
    said.root,
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

async function attempt(work, words) {
  const [, problem] = await outcome(work);
  return problem && { text: sayProblem(problem, words).join(": "), bad: true };
}
