// The webhooks panel of the operator's page: the endpoints, their last failures, and what operators have them do.

import { Problem } from "./api.js";
import { element } from "./dom.js";
import { badge, panel, problemTold, rowsShown } from "./ops-panels.js";
import { sayProblem } from "./states.js";

const STATES = { enabled: "ready", failing: "notReady", disabled: "unreachable", new: "degraded" };
const FAILURES = 10;

export class WebhooksPanel {
  /** `onDone` is called after an action, which has changed what is shown. */
  constructor(api, words, ops, format, onDone) {
    this._api = api;
    this._words = words;
    this._ops = ops;
    this._format = format;
    this._onDone = onDone;
    this._running = new Set();
    this._buttons = new Map();
    // One element for all drawings: only a change within it is read aloud.
    this._said = element("p", { class: "webhooks-said", role: "status" });
  }

  draw({ services, endpoints }) {
    const { webhooks: words, notices } = this._ops;
    const lag = services.reduce((sum, service) => sum + (service.lag_records ?? 0), 0);
    const away = services.filter(({ reachable }) => !reachable).map(({ url, problem }) => element("p", { class: "edge-problem" }, element("bdi", {}, notices.webhooksDown(url, problemTold(problem ?? "?", this._ops)))));
    const shown = services.length > away.length ? [rowsShown(endpoints, this._columns(), words.title), this._said, this._failures(endpoints)] : [];
    return panel("webhooks", words.title, words.hint(this._format.number(lag)), ...away, ...shown);
  }

  _columns() {
    const { webhooks: words } = this._ops;
    const format = this._format;
    return [
      [words.endpoint, ({ id, state }) => element("span", { class: "webhooks-name" }, element("b", {}, id), badge(STATES[state] ?? "degraded", words.states[state] ?? state))],
      [words.address, ({ url, format: kind }) => `${url} ${kind}`, "long"],
      [words.success, ({ attempts, delivered }) => (attempts > 0 ? words.ofAttempts(format.percent(delivered / attempts), format.number(attempts)) : null)],
      [words.waiting, ({ waiting }) => format.number(waiting)],
      [words.oldest, ({ waiting, oldest_s: age }) => (waiting > 0 ? format.seconds(age) : null)],
      [words.givenUp, ({ given_up: count }) => format.number(count)],
      [words.actions, ({ id, given_up: count }) => element("span", { class: "webhooks-actions" }, this._button(id, "test", true), this._button(id, "replay", count > 0))],
    ];
  }

  _failures(endpoints) {
    const { webhooks: words, columns } = this._ops;
    const found = endpoints.flatMap(({ id, failures }) => failures.map((failure) => ({ ...failure, endpoint: id })));
    const latest = found.toSorted((one, other) => (one.attempted_at < other.attempted_at ? 1 : -1)).slice(0, FAILURES);
    if (latest.length === 0) return null;
    const shown = [
      [columns.at, (row) => this._format.moment(row.attempted_at)],
      [words.endpoint, (row) => row.endpoint],
      [words.answer, (row) => row.problem, "long"],
      [words.attempts, (row) => this._format.number(row.attempts)],
      [columns.status, (row) => words.outcomes[row.outcome] ?? row.outcome],
    ];
    return element("section", { class: "find-part" }, element("h3", {}, words.failures), rowsShown(latest, shown, words.failures));
  }

  _button(id, action, possible) {
    const key = `${action} ${id}`;
    const { [action]: text, [`${action}Of`]: label } = this._ops.webhooks;
    // Not disabled in earnest: a button that is would lose the focus.
    const properties = { type: "button", class: "quiet-button", "aria-label": label(id), "aria-disabled": possible ? null : "true", data: { key } };
    const made = element("button", { ...properties, on: { click: () => made.getAttribute("aria-disabled") || this._act(id, action) } }, text);
    this._buttons.set(key, made);
    if (this._running.has(key)) made.setAttribute("aria-disabled", "true");
    return made;
  }

  async _act(id, action) {
    const key = `${action} ${id}`;
    const { webhooks: words } = this._ops;
    this._running.add(key);
    this._buttons.get(key).setAttribute("aria-disabled", "true");
    this._said.textContent = words.running(id);
    try {
      const found = await this._api.actOnWebhooks(id, action);
      this._said.textContent = action === "replay" ? words.replayed(id, this._format.number(found.replayed)) : words.tested(id, found.delivered, found.problem ?? found.status ?? "");
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this._said.textContent = `${id}: ${error.status === 0 ? sayProblem(error, this._words)[0] : problemTold(error.message, this._ops)}`;
    } finally {
      this._running.delete(key);
      this._buttons.get(key).removeAttribute("aria-disabled");
      this._onDone();
    }
  }
}
