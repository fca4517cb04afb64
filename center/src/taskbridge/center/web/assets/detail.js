// One instance in full: who has it now, what happened, what was filled in.

import { taskKey } from "./actions.js";
import { Problem } from "./api.js";
import { DecidingPanel } from "./deciding.js";
import { decisionsShown, resultShown } from "./decisions.js";
import { debounced, element, icon, outsideLink, replace } from "./dom.js";
import { formShown } from "./form-values.js";
import { Format, hue, initials, namesIn } from "./format.js";
import { keyOf } from "./inbox.js";
import { MarkTools } from "./mark-tools.js";
import { decisionOf, decisionShown, dueShown, hasEnded, nothingToShow, problemShown, statusShown } from "./states.js";
import { itemShown } from "./task-rows.js";
import { timelineShown } from "./timeline.js";

const AGAIN_AFTER_MS = 200;
const READ_AGAIN_MS = 1000;

export class Detail {
  /** `close` leads back to the list where only one of them is shown. */
  constructor(api, inbox, words, { close, actions }) {
    this._api = api;
    this._inbox = inbox;
    this._actions = actions;
    this._words = words;
    this._format = new Format(words.tag);
    this._shown = null;
    this._item = null;
    this._loading = null;
    this._again = debounced(() => this._load(), AGAIN_AFTER_MS);
    this._listening = new AbortController();
    this._body = element("div", { class: "detail-body", tabindex: "-1" });
    this._marks = new MarkTools(inbox, words);
    this.root = element(
      "section",
      { class: "detail", "aria-label": words.detail.label },
      element(
        "div",
        { class: "detail-bar" },
        element("button", { type: "button", class: "back", on: { click: close } }, icon("back"), words.detail.back),
        this._marks.root,
      ),
      this._body,
    );
    inbox.addEventListener("change", () => this._marks.refresh(), { signal: this._listening.signal });
    inbox.addEventListener("instance", ({ detail }) => this._onInstance(detail), { signal: this._listening.signal });
    actions.addEventListener("change", () => this._deciding?.render(), { signal: this._listening.signal });
    this._empty();
  }

  get instanceId() {
    return this._shown;
  }

  dispose() {
    this._listening.abort();
    this._loading?.abort();
    this._again.cancel();
  }

  focus() {
    this._body.focus({ preventScroll: true });
  }

  /** Put the keyboard where the shown task is decided. */
  decide() {
    if (this._deciding?.isPossible) this._deciding.focus();
  }

  /** Show an instance; `item` is its row, when there is one. Null: nothing. */
  show(instanceId, item = null) {
    const other = instanceId !== this._shown;
    this._item = item ?? (other ? null : this._item);
    this._marks.show(instanceId === null ? null : this._item);
    if (!other) {
      if (instanceId !== null && this._state) this._render();
      return;
    }
    this._shown = instanceId;
    this._state = null;
    this._history = null;
    this._loading?.abort();
    if (instanceId === null) {
      this._empty();
      return;
    }
    this._body.scrollTop = 0;
    replace(this._body, this._item === null ? element("p", { class: "detail-wait" }, this._words.loading) : this._head(null));
    this._load();
  }

  _empty() {
    replace(this._body, nothingToShow("inbox", this._words.detail.choose));
  }

  _onInstance({ instanceId }) {
    if (instanceId === this._shown) this._again();
  }

  async _load() {
    this._loading?.abort();
    const loading = new AbortController();
    this._loading = loading;
    const id = this._shown;
    const history = this._api.history(id, loading.signal).catch((error) => error);
    try {
      const state = await this._api.instance(id, loading.signal);
      const told = await history;
      if (loading.signal.aborted) return;
      this._state = state;
      if (!(told instanceof Error)) this._history = told;
      // Its events are not all read yet.
      else if (told.status === 503) setTimeout(() => this._onInstance({ instanceId: id }), READ_AGAIN_MS);
      this._render();
    } catch (error) {
      if (loading.signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      this._state = null;
      if (error.status === 404) replace(this._body, this._item && this._head(null), nothingToShow("trash", this._words.detail.gone));
      else replace(this._body, problemShown(error, this._words, () => this._load()));
    }
  }

  _render() {
    const focused = document.activeElement?.closest?.(".detail-body") === this._body && document.activeElement.dataset.keep;
    replace(
      this._body,
      this._head(this._state),
      this._decidingOf(this._item),
      this._people(this._state),
      this._decisions(this._state),
      this._section(this._words.detail.timeline, timelineShown(this._history, this._context())),
      this._form(),
      this._technical(this._state),
    );
    if (focused) this._body.querySelector(`[data-keep="${focused}"]`)?.focus({ preventScroll: true });
  }

  _decidingOf(item) {
    if (item === null) return null;
    const same = this._deciding && taskKey(this._deciding.item) === taskKey(item);
    if (!same) this._deciding = new DecidingPanel(this._api, this._actions, this._words, item);
    this._deciding.item = item;
    this._deciding.revision = this._state.revision;
    // The callback may come before the row leaves, and the row leaves before these details.
    this._deciding.isOpen = (this._task(this._state)?.status ?? "PENDING") === "PENDING";
    this._deciding.steps = earlierSteps(this._state, item);
    this._deciding.render();
    return this._deciding.root;
  }

  /** How people of this instance are called: names where they are known. */
  _context() {
    const originator = this._state?.originator ?? this._item?.originator ?? null;
    const names = namesIn(originator, this._state, this._history);
    const name = (id) => (id === this._inbox.person.userId ? this._words.you : (names.get(id) ?? id));
    return { words: this._words, format: this._format, name };
  }

  _head(state) {
    const { words } = this._context();
    const item = this._item;
    const task = this._task(state);
    const title = state?.title ?? item?.title;
    const originator = state?.originator ?? item?.originator;
    const name = originator?.name || originator?.user_id || words.unknownPerson;
    const process = state?.process_name ?? item?.process_name;
    const link = outsideLink(
      task?.url ?? item?.url ?? state?.url,
      { class: "open-page", "aria-label": words.detail.openLabel, data: { keep: "open" } },
      words.detail.open,
      icon("external"),
    );
    const gone = item !== null && this._inbox.phase === "ready" && !item.on_behalf_of && this._left(item);
    return element(
      "header",
      { class: "detail-head" },
      element(
        "div",
        { class: "detail-tags" },
        state ? requestShown(state, task, words) : itemShown(item, words),
        element("bdi", { class: "detail-process" }, process || state?.app_type || item?.app_type),
        gone ? element("span", { class: "detail-left" }, words.detail.left) : null,
      ),
      element("h2", { class: title ? "" : "untitled" }, element("bdi", {}, title || words.untitled)),
      element(
        "div",
        { class: "detail-by" },
        element("span", { class: "avatar", "aria-hidden": "true", data: { hue: hue(originator?.user_id ?? name) } }, initials(originator?.name)),
        element("bdi", { class: "detail-name" }, name),
        state ? element("time", { datetime: state.created_at }, this._format.full(state.created_at)) : null,
      ),
      link ?? element("p", { class: "no-page" }, words.detail.noPage),
    );
  }

  /** The one that the row is about, where it is about one. */
  _task(state) {
    return state?.tasks.find((task) => task.task_id === this._item?.task_id);
  }

  _left(item) {
    return !this._inbox.all.some((other) => keyOf(other) === keyOf(item));
  }

  _decisions(state) {
    const shown = decisionsShown(state, this._context());
    return shown === null ? null : this._section(this._words.detail.decisions, shown);
  }

  _people(state) {
    const context = this._context();
    const { words, name } = context;
    const result = resultShown(state, overall(state), context);
    const waiting = [...new Set(state.tasks.filter((task) => task.status === "PENDING").flatMap((task) => task.assignee_ids))];
    const chips = (ids) => element("dd", {}, ...ids.map((id) => element("bdi", { class: "chip" }, name(id))));
    const copied = state.copied.map((entry) => entry.user_id);
    const task = this._task(state);
    const step = task?.step_name;
    const due = this._item?.view === "pending" ? this._item.due_at : null;
    const decision = task?.actor_id === this._inbox.person.userId ? decisionShown(task, words) : null;
    return element(
      "dl",
      { class: "facts" },
      step ? element("dt", {}, words.detail.step) : null,
      step ? element("dd", {}, element("bdi", {}, step)) : null,
      element("dt", {}, words.detail.waitingFor),
      waiting.length > 0 ? chips(waiting) : element("dd", { class: "faint" }, words.detail.nobodyWaits),
      copied.length > 0 ? element("dt", {}, words.detail.copied) : null,
      copied.length > 0 ? chips(copied) : null,
      decision === null ? null : element("dt", {}, words.detail.decision),
      decision === null ? null : element("dd", {}, decision),
      result === null ? null : element("dt", {}, words.detail.result),
      result,
      due ? element("dt", {}, words.due.label) : null,
      due ? element("dd", {}, element("time", { datetime: due }, this._format.full(due)), " ", dueShown(this._item, words, this._format)) : null,
      element("dt", {}, words.detail.updated),
      element("dd", {}, element("time", { datetime: state.updated_at }, this._format.full(state.updated_at))),
    );
  }

  _form() {
    const { form = {}, form_title: title = null, form_labels: labels = {} } = this._history ?? {};
    const heading = title === null ? this._words.detail.form : `${this._words.detail.form} · ${title}`;
    return this._section(heading, formShown(form, labels, this._words));
  }

  _section(heading, ...content) {
    return element("section", { class: "detail-section" }, element("h3", {}, heading), ...content);
  }

  _technical(state) {
    const { words } = this._context();
    const row = (label, value) => (value ? [element("dt", {}, label), element("dd", { class: "mono" }, element("bdi", {}, String(value)))] : []);
    const copy = element("button", { type: "button", class: "quiet-button", data: { keep: "copy" } }, icon("copy"), words.detail.copy);
    copy.addEventListener("click", async () => {
      await navigator.clipboard?.writeText(state.instance_id).catch(() => {});
      copy.lastChild.textContent = words.detail.copiedToClipboard;
    });
    const details = element(
      "details",
      { class: "technical" },
      element("summary", { data: { keep: "technical" } }, words.detail.technical),
      element(
        "dl",
        { class: "facts" },
        ...row(words.detail.instance, state.instance_id),
        ...row(words.detail.task, this._item?.task_id),
        ...row(words.detail.app, state.app_type),
        ...row(words.detail.process, state.process_code),
        ...row(words.detail.revision, state.revision),
      ),
      copy,
    );
    details.open = this._technicalOpen ?? false;
    details.addEventListener("toggle", () => {
      this._technicalOpen = details.open;
    });
    return details;
  }
}

/** Where people decided before, oldest first: by the step's id, its name. */
function earlierSteps({ tasks }, { task_id: id }) {
  const here = tasks.find((task) => task.task_id === id)?.step_id;
  const done = tasks.filter((task) => task.status === "COMPLETED" && task.actor_id !== null && task.step_id && task.step_id !== here);
  const inOrder = done.toSorted((one, other) => Date.parse(one.decided_at) - Date.parse(other.decided_at));
  return new Map(inOrder.map(({ step_id: step, step_name: name }) => [step, name ?? step]));
}

/** Of the whole request: how it ended. Where nobody says so, how the row's task was decided is what is known. */
function requestShown(state, task, words) {
  const status = overall(state);
  if (hasEnded({ ...state, status })) return statusShown("ENDED", words);
  const outcome = decisionOf(state.result, words) === null ? task?.outcome : state.result;
  return decisionShown({ status, outcome }, words) ?? statusShown(status, words);
}

/** The contract's rule for an instance: pending while any task is, else completed, else cancelled, else active. */
function overall(state) {
  if (state.lifecycle === "DELETED") return "DELETED";
  const found = new Set(state.tasks.map((task) => task.status));
  return ["PENDING", "COMPLETED", "CANCELLED"].find((status) => found.has(status)) ?? "ACTIVE";
}
