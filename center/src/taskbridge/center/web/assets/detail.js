// One instance in full: who has it now, what happened, what was filled in.

import { taskKey } from "./actions.js";
import { Latest } from "./api.js";
import { DecidingPanel } from "./deciding.js";
import { decisionsShown, resultShown } from "./decisions.js";
import { button, debounced, element, icon, outsideLink, replace } from "./dom.js";
import { formShown } from "./form-values.js";
import { Format, namesIn } from "./format.js";
import { keyOf } from "./inbox.js";
import { MarkTools } from "./mark-tools.js";
import { avatar, decisionOf, decisionShown, dueShown, hasEnded, nothingToShow, problemShown, statusShown } from "./states.js";
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
    this._loading = new Latest();
    this._again = debounced(() => this._load(), AGAIN_AFTER_MS);
    this._body = element("div", { class: "detail-body", tabindex: "-1" });
    this._marks = new MarkTools(inbox, words);
    this.root = element(
      "section",
      { class: "detail", "aria-label": words.detail.label },
      element("div", { class: "detail-bar" }, button([icon("back"), words.detail.back], close, { class: "tool back" }), this._marks.root),
      this._body,
    );
    inbox.addEventListener("change", () => this._marks.refresh());
    inbox.addEventListener("instance", ({ detail }) => this._onInstance(detail));
    actions.addEventListener("change", () => this._deciding?.render());
    this._empty();
  }

  get instanceId() {
    return this._shown;
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
    this._loading.cancel();
    if (instanceId === null) {
      this._empty();
      return;
    }
    this._body.scrollTop = 0;
    replace(this._body, this._item === null ? element("p", { class: "note" }, this._words.loading) : this._head(null));
    this._load();
  }

  _empty() {
    replace(this._body, nothingToShow("inbox", this._words.detail.choose));
  }

  _onInstance({ instanceId }) {
    if (instanceId === this._shown) this._again();
  }

  _load() {
    const id = this._shown;
    const request = async (signal) => {
      const path = `/v1/instances/${encodeURIComponent(id)}`;
      const history = this._api.get(`${path}/history`, {}, signal).catch((error) => error);
      return [await this._api.get(path, {}, signal), await history];
    };
    return this._loading.run(request, {
      found: ([state, history]) => {
        this._state = state;
        if (!(history instanceof Error)) this._history = history;
        // Its events are not all read yet.
        else if (history.status === 503) setTimeout(() => this._onInstance({ instanceId: id }), READ_AGAIN_MS);
        this._render();
      },
      failed: (problem) => {
        this._state = null;
        if (problem.status === 404) replace(this._body, this._item && this._head(null), nothingToShow("trash", this._words.detail.gone));
        else replace(this._body, problemShown(problem, this._words, () => this._load()));
      },
    });
  }

  _render() {
    const context = this._context();
    const { detail } = this._words;
    const decisions = decisionsShown(this._state, context);
    replace(
      this._body,
      this._head(this._state),
      this._decidingOf(this._item),
      this._people(this._state, context),
      decisions === null ? null : section(detail.decisions, decisions),
      section(detail.timeline, timelineShown(this._history, context)),
      this._form(),
      this._technical(this._state),
    );
  }

  _decidingOf(item) {
    if (item === null) return null;
    const same = this._deciding && taskKey(this._deciding.item) === taskKey(item);
    if (!same) this._deciding = new DecidingPanel(this._api, this._actions, this._words);
    // The callback may come before the row leaves, and the row leaves before these details.
    const isOpen = (this._task(this._state)?.status ?? "PENDING") === "PENDING";
    this._deciding.show(item, { revision: this._state.revision, isOpen, steps: earlierSteps(this._state, item) });
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
    const { _words: words, _item: item } = this;
    const task = this._task(state);
    const title = state?.title ?? item?.title;
    const originator = state?.originator ?? item?.originator;
    const name = originator?.name || originator?.user_id || words.unknownPerson;
    const process = state?.process_name ?? item?.process_name;
    const link = outsideLink(
      task?.url ?? item?.url ?? state?.url,
      { class: "primary-button open-page", "aria-label": words.detail.openLabel, data: { keep: "open" } },
      words.detail.open,
      icon("external"),
    );
    const gone = item !== null && this._inbox.phase === "ready" && !item.on_behalf_of && this._left(item);
    return element(
      "header",
      { class: "detail-head" },
      element(
        "div",
        { class: "detail-tags line note" },
        state ? requestShown(state, task, words) : itemShown(item, words),
        element("bdi", { class: "detail-process" }, process || state?.app_type || item?.app_type),
        gone ? element("span", { class: "detail-left" }, words.detail.left) : null,
      ),
      element("h2", { class: title ? "" : "untitled" }, element("bdi", {}, title || words.untitled)),
      element(
        "div",
        { class: "detail-by line note" },
        avatar(originator, name),
        element("bdi", { class: "detail-name" }, name),
        state ? this._format.time(state.created_at) : null,
      ),
      link ?? element("p", { class: "note" }, words.detail.noPage),
    );
  }

  /** The one that the row is about, where it is about one. */
  _task(state) {
    return state?.tasks.find((task) => task.task_id === this._item?.task_id);
  }

  _left(item) {
    return !this._inbox.all.some((other) => keyOf(other) === keyOf(item));
  }

  _people(state, { words, name }) {
    const { _format: format, _item: item } = this;
    const task = this._task(state);
    const chips = (ids) => (ids.length > 0 ? ids.map((id) => element("bdi", { class: "chip" }, name(id))) : null);
    const waiting = chips([...new Set(state.tasks.filter(({ status }) => status === "PENDING").flatMap(({ assignee_ids: ids }) => ids))]);
    const due = item?.view === "pending" ? item.due_at : null;
    return facts(
      [words.detail.step, task?.step_name ? element("bdi", {}, task.step_name) : null],
      [words.detail.waitingFor, waiting ?? element("span", { class: "faint" }, words.detail.nobodyWaits)],
      [words.detail.copied, chips(state.copied.map(({ user_id: id }) => id))],
      [words.detail.decision, task?.actor_id === this._inbox.person.userId ? decisionShown(task, words) : null],
      [words.detail.result, resultShown(state, overall(state), { words, format })],
      [words.due.label, due ? [format.time(due), " ", dueShown(item, words, format)] : null],
      [words.detail.updated, format.time(state.updated_at)],
    );
  }

  _form() {
    const { form = {}, form_title: title = null, form_labels: labels = {} } = this._history ?? {};
    const heading = title === null ? this._words.detail.form : `${this._words.detail.form} · ${title}`;
    return section(heading, formShown(form, labels, this._words));
  }

  _technical(state) {
    const { detail: words } = this._words;
    const id = (value) => (value ? element("bdi", { class: "mono" }, String(value)) : null);
    const copy = button([icon("copy"), words.copy], async () => {
      await navigator.clipboard?.writeText(state.instance_id).catch(() => {});
      copy.lastChild.textContent = words.copiedToClipboard;
    }, { data: { keep: "copy" } });
    const details = element(
      "details",
      { class: "technical", open: this._technicalOpen, on: { toggle: () => (this._technicalOpen = details.open) } },
      element("summary", { class: "note", data: { keep: "technical" } }, words.technical),
      facts(
        [words.instance, id(state.instance_id)],
        [words.task, id(this._item?.task_id)],
        [this._words.columns.app, id(state.app_type)],
        [this._words.columns.process, id(state.process_code)],
        [words.revision, id(state.revision)],
      ),
      copy,
    );
    return details;
  }
}

function section(heading, ...content) {
  return element("section", { class: "detail-section" }, element("h3", {}, heading), ...content);
}

/** Labels with what is known of them; those of which nothing is known are left out. */
function facts(...entries) {
  const known = entries.filter(([, shown]) => shown !== null);
  return element("dl", { class: "facts" }, ...known.flatMap(([label, shown]) => [element("dt", { class: "note" }, label), element("dd", { class: "line" }, shown)]));
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
