// The webhooks panel of the operator's page: the endpoints, their last failures, and what operators have them do.

import { outcome } from "./api.js";
import { button, element, recordsTable } from "./dom.js";
import { badge, problemTold, serviceSaid } from "./ops-panels.js";
import { sayProblem } from "./states.js";

const STATES = { enabled: "ready", failing: "notReady", disabled: "unreachable", new: "degraded" };
const FAILURES = 10;

/** The panel, as `PANELS` has the others. */
export function webhooksPanel({ api, words, ops, format, refresh }) {
  const { webhooks: said } = ops;
  const { columns } = words;
  const running = new Set();
  const buttons = new Map();
  // One element for all drawings: only a change within it is read aloud.
  const status = element("p", { class: "webhooks-said", role: "status" });

  const shown = [
    [said.endpoint, ({ id, state }) => element("span", { class: "line" }, element("b", {}, id), badge(STATES[state] ?? "degraded", said.states[state] ?? state))],
    [said.address, ({ url, format: kind }) => `${url} ${kind}`, "long"],
    [said.success, ({ attempts, delivered }) => (attempts > 0 ? said.ofAttempts(format.percent(delivered / attempts), format.number(attempts)) : null)],
    [said.waiting, ({ waiting }) => format.number(waiting)],
    [said.oldest, ({ waiting, oldest_s: age }) => (waiting > 0 ? format.seconds(age) : null)],
    [said.givenUp, ({ given_up: count }) => format.number(count)],
    [said.actions, ({ id, given_up: count }) => element("span", { class: "line" }, actionButton(id, "test", true), actionButton(id, "replay", count > 0))],
  ];
  const failureColumns = [
    [columns.at, (row) => format.moment(row.attempted_at)],
    [said.endpoint, (row) => row.endpoint],
    [said.answer, (row) => row.problem, "long"],
    [said.attempts, (row) => format.number(row.attempts)],
    [columns.status, (row) => said.outcomes[row.outcome] ?? row.outcome],
  ];

  function failures(endpoints) {
    const found = endpoints.flatMap(({ id, failures: each }) => each.map((failure) => ({ ...failure, endpoint: id })));
    const latest = found.toSorted((one, other) => (one.attempted_at < other.attempted_at ? 1 : -1)).slice(0, FAILURES);
    if (latest.length === 0) return null;
    return element("section", { class: "find-part" }, element("h3", {}, said.failures), recordsTable(said.failures, failureColumns, latest));
  }

  function actionButton(id, action, possible) {
    const key = `${action} ${id}`;
    const act = () => made.getAttribute("aria-disabled") || run(id, action, key);
    // Not disabled in earnest: a button that is would lose the focus.
    const disabled = possible && !running.has(key) ? null : "true";
    const made = button(said[action], act, { "aria-label": `${said[action]}: ${id}`, "aria-disabled": disabled, data: { keep: key } });
    buttons.set(key, made);
    return made;
  }

  async function run(id, action, key) {
    running.add(key);
    buttons.get(key).setAttribute("aria-disabled", "true");
    status.textContent = said.running(id);
    const [found, problem] = await outcome(api.send("POST", `/v1/ops/webhooks/${encodeURIComponent(id)}/${action}`));
    if (problem !== null) status.textContent = `${id}: ${problem.status === 0 ? sayProblem(problem, words)[0] : problemTold(problem.message, ops)}`;
    else if (action === "replay") status.textContent = said.replayed(id, format.number(found.replayed));
    else status.textContent = said.tested(id, found.delivered, found.problem ?? found.status ?? "");
    running.delete(key);
    buttons.get(key).removeAttribute("aria-disabled");
    refresh();
  }

  const hint = ({ services }) => said.hint(format.number(services.reduce((sum, service) => sum + (service.lag_records ?? 0), 0)));

  function content({ services, endpoints }) {
    const away = services.filter(({ reachable }) => !reachable);
    const problems = away.map((service) => element("p", { class: "edge-problem" }, element("bdi", {}, serviceSaid("webhooks", service, ops))));
    const tables = services.length > away.length ? [recordsTable(ops.headings.webhooks, shown, endpoints), status, failures(endpoints)] : [];
    return [...problems, ...tables];
  }

  return { name: "webhooks", part: (overview) => overview.webhooks ?? undefined, hint, content };
}
