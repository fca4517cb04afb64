// The panels of the operator's page: each makes elements of one part of the overview.

import { element, icon, scrollingTable } from "./dom.js";
import { bar, bars, line, stackedBars } from "./plots.js";

const LAG_MATTERS_S = 5;
const SILENT = 3; // As the alert ReconcileAppSilent has it.
const WIRE_ACTIONS = { create: "CREATED", complete: "COMPLETED", cancel: "CANCELLED", delete: "DELETED", cc: "COPIED" };

/** A reason in words, next to its code where that is another: commands want the code. */
export function reasonTold(reason, { reasons }) {
  return Object.hasOwn(reasons, reason ?? "") ? `${reasons[reason]} ${reason}` : reason;
}

/** What a service says is wrong, in the reader's words as far as they are known. */
export function problemTold(problem, { problems }) {
  const known = Object.keys(problems).filter((each) => problem.includes(each));
  return known.reduce((told, each) => told.replace(each, problems[each]), problem);
}

/** Why an entry was set aside, and when it was replayed. */
const reasonOf = (words, format) => (row) => (row.replayed_at ? `${reasonTold(row.reason, words)} (${words.told.replayed(format.moment(row.replayed_at), 0)})` : reasonTold(row.reason, words));

/** What a callback was posted to do, in words. */
export function actionTold(action, { actions, otherActions }) {
  return actions[WIRE_ACTIONS[action]] ?? otherActions[action] ?? action;
}

export function panel(kind, heading, hint, ...content) {
  return element(
    "section",
    { class: `panel ${kind}` },
    element("header", {}, element("h2", {}, heading), hint ? element("p", { class: "faint" }, hint) : null),
    ...content,
  );
}

/** In place of a table that would be empty. */
export const noneShown = (sentence) => element("p", { class: "panel-none" }, icon("check"), sentence);

/** What an operator should know first: `[[level, sentence]]`, the worst on top; empty when all is well. */
export function notices(overview, words, format) {
  const say = words.notices;
  const why = (problem) => problemTold(problem ?? "?", words);
  const found = [];
  const note = (level, sentence) => found.push([level, sentence]);
  for (const edge of overview.edges) {
    if (!edge.reachable) note("bad", say.edgeDown(edge.url));
    else if (!edge.ready) note("bad", say.edgeNotReady(edge.url));
    else if (edge.degraded) note("warn", say.edgeDegraded(edge.url, why(edge.problem)));
    if (edge.spool?.records > 0) note("warn", say.spool(format.number(edge.spool.records), format.seconds(edge.spool.oldest_age_s)));
  }
  for (const worker of overview.workers) {
    if (!worker.reachable) note("bad", say.workerDown(worker.url));
    else if (!worker.ready) note("warn", say.workerNotReady(worker.url));
    else if (worker.problem) note("warn", say.workerProblem(worker.url, why(worker.problem)));
  }
  const orphans = orphaned(overview);
  if (orphans.length > 0) note("bad", say.noWorker(orphans.join(", ")));
  for (const { partition, lag_seconds: lag } of overview.partitions) {
    if (lag > LAG_MATTERS_S) note("warn", say.lag(partition, format.seconds(lag)));
  }
  const { replicas, filled } = overview.center;
  for (const { replica, reachable, ready, problem } of replicas) {
    if (!reachable) note("bad", say.replicaDown(replica));
    else if (!ready) note("warn", say.replicaNotReady(replica, why(problem)));
    else if (problem) note("warn", say.replicaProblem(replica, why(problem)));
  }
  if (filled < 1) note("warn", say.filling(format.percent(filled)));
  if (overview.missed && !overview.missed.reachable) note("warn", say.reconcileDown(overview.missed.url));
  for (const { url, reachable, ready, problem } of overview.webhooks?.services ?? []) {
    if (!reachable) note("bad", say.webhooksDown(url, why(problem)));
    else if (problem || !ready) note("warn", say.webhooksProblem(url, why(problem)));
  }
  for (const { id, state, disabled, failing_since: since, waiting, given_up: givenUp } of overview.webhooks?.endpoints ?? []) {
    if (state === "disabled") note("bad", say.endpointDisabled(id, why(disabled)));
    else if (state === "failing") note("warn", say.endpointFailing(id, format.ago(since), format.number(waiting)));
    if (givenUp > 0) note("warn", say.givenUp(id, format.number(givenUp)));
  }
  for (const app of overview.missed?.silent ?? []) {
    if (app.missing >= SILENT) note("bad", say.silent(app.app_type, format.ago(app.since), format.number(app.missing)));
  }
  if (overview.dead_letters.total > 0) note("warn", say.deadLetters(format.number(overview.dead_letters.total)));
  if (overview.quarantine.total > 0) note("info", say.quarantine(format.number(overview.quarantine.total)));
  const order = ["bad", "warn", "info"];
  return found.toSorted((one, other) => order.indexOf(one[0]) - order.indexOf(other[0]));
}

/** Partitions that nobody says to work on. They are numbered from zero, so a gap is one, and so is a standby's own. */
function orphaned({ partitions, workers }) {
  const worked = new Set(partitions.filter(({ worker }) => worker).map(({ partition }) => partition));
  const seen = [...partitions.map(({ partition }) => partition), ...workers.flatMap(({ standby }) => standby ?? [])];
  return Array.from({ length: Math.max(-1, ...seen) + 1 }, (_, number) => number).filter((number) => !worked.has(number));
}

export function noticesShown(found, words) {
  if (found.length === 0) {
    return element("div", { class: "notices well" }, icon("check"), element("b", {}, words.well), element("span", {}, words.wellText));
  }
  return element(
    "ul",
    { class: "notices" },
    ...found.map(([level, sentence]) => element("li", { data: { level } }, icon(level === "info" ? "clock" : "warning"), element("span", {}, sentence))),
  );
}

export function flowPlot({ minutes, actions }, words, format) {
  const series = Object.entries(words.actions).map(([action, name]) => ({ name, kind: action.toLowerCase(), values: actions[action] ?? [] }));
  return stackedBars({ times: minutes, series, label: words.flow, help: words.plotHelp, format });
}

export function historyPlots(history, words, format) {
  return Object.entries(words.histories).map(([name, label]) => {
    const kind = { lag_records: "lag", spool_records: "spool", accepted_per_minute: "accepted", rejected_per_minute: "rejected" }[name];
    const plot = line({ times: history.times, values: (history[name] ?? []).map(Number), label, help: words.plotHelp, format, kind });
    return { label, plot };
  });
}

export function edgesShown(edges, words, format) {
  if (edges.length === 0) return [element("p", { class: "faint" }, words.none)];
  return edges.map((edge) => {
    const state = !edge.reachable ? "unreachable" : !edge.ready ? "notReady" : edge.degraded ? "degraded" : "ready";
    const outcomes = Object.entries(edge.outcomes ?? {}).toSorted((one, other) => other[1] - one[1]);
    const spool = edge.spool;
    return element(
      "article",
      { class: "edge" },
      element("h3", {}, element("bdi", { class: "mono" }, edge.url), badge(state, words.states[state])),
      edge.problem ? element("p", { class: "edge-problem" }, element("bdi", {}, problemTold(edge.problem, words))) : null,
      bars(outcomes.map(([name, number]) => [name === "accepted" ? words.accepted : reasonTold(name, words), number, name === "accepted" ? "accepted" : "rejected"]), format),
      element(
        "p",
        { class: "edge-spool" },
        element("span", { class: "faint" }, words.spoolName),
        spool && spool.records > 0
          ? element("b", {}, `${format.number(spool.records)} · ${format.bytes(spool.bytes)} · ${format.seconds(spool.oldest_age_s)}`)
          : element("span", {}, words.spoolEmpty),
      ),
    );
  });
}

export function badge(state, text) {
  return element("span", { class: "badge", data: { state } }, text);
}

/** Workers × partitions: who works on what, who stands by, and how far behind each partition is. */
export function partitionMap({ partitions, workers }, words, format) {
  const numbers = partitions.map(({ partition }) => partition);
  const most = Math.max(1, ...partitions.map(({ lag_records: lag }) => lag ?? 0));
  const cell = (worker, number) => {
    const role = worker.active?.includes(number) ? "active" : worker.standby?.includes(number) ? "standby" : null;
    return element("td", {}, role === null ? null : element("span", { class: `cell ${role}` }, element("span", { class: "unseen" }, words[role])));
  };
  const row = (worker) => {
    const state = !worker.reachable ? "unreachable" : worker.ready ? "ready" : "notReady";
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, element("bdi", { class: "mono" }, worker.url), badge(state, words.states[state])),
      ...numbers.map((number) => cell(worker, number)),
      element("td", { class: "since" }, format.ago(worker.since)),
    );
  };
  const lag = (partition) =>
    element(
      "td",
      { class: "lag", data: { late: String((partition.lag_seconds ?? 0) > LAG_MATTERS_S) } },
      bar((partition.lag_records ?? 0) / most, (partition.lag_seconds ?? 0) > LAG_MATTERS_S ? "rejected" : "lag"),
      element("span", {}, format.number(partition.lag_records)),
      element("small", {}, partition.lag_records > 0 ? format.seconds(partition.lag_seconds) : ""),
    );
  const headings = [
    element("th", { scope: "col" }, words.worker),
    ...numbers.map((number) => element("th", { scope: "col", class: "mono", "aria-label": `${words.partition} ${number}` }, String(number))),
    element("th", { scope: "col" }, words.since),
  ];
  const lags = element("tr", {}, element("th", { scope: "row" }, words.lag), ...partitions.map(lag), element("td", {}));
  return scrollingTable(words.map, headings, workers.map(row), { table: "map", foot: element("tfoot", {}, lags) });
}

/** The replicas of the task center itself. */
export function replicaColumns(words, format) {
  const state = ({ reachable, ready }) => (!reachable ? "unreachable" : ready ? "ready" : "notReady");
  return [
    [words.replica, (row) => row.replica],
    [words.columns.status, (row) => badge(state(row), words.states[state(row)])],
    [words.lag, (row) => format.number(row.lag_records)],
    [words.connections, (row) => format.number(row.sse_connections)],
    [words.since, (row) => format.ago(row.since)],
  ];
}

/** A table of texts: `columns` are `[heading, (row) => text or element]`, and `"long"` where words may be. */
export function rowsShown(rows, columns, label) {
  const headings = columns.map(([heading]) => element("th", { scope: "col" }, heading));
  const cells = (row) => columns.map(([heading, shown, kind = ""]) => element("td", { class: kind, data: { heading } }, element("bdi", {}, shown(row) ?? "–")));
  return scrollingTable(label, headings, rows.map((row) => element("tr", {}, ...cells(row))), { kind: "records" });
}

export function reasonsShown({ reasons }, words, format) {
  const entries = Object.entries(reasons).toSorted((one, other) => other[1] - one[1]);
  return bars(entries.map(([reason, number]) => [reasonTold(reason, words), number, "rejected"]), format);
}

export function quarantineColumns(words, format) {
  const { columns } = words;
  return [
    [columns.at, (row) => format.moment(row.received_at)],
    [columns.action, (row) => actionTold(row.action, words)],
    [columns.reason, reasonOf(words, format)],
    [columns.app, (row) => row.app_type, "long"],
    [columns.from, (row) => row.remote_address],
  ];
}

export function missedColumns(words, format) {
  const { columns } = words;
  return [
    [columns.day, (row) => row.day],
    [columns.app, (row) => row.app_type],
    [columns.missing, (row) => format.number(row.missing)],
    [columns.added, (row) => format.number(row.added)],
  ];
}

export function deadLetterColumns(words, format) {
  const { columns } = words;
  return [
    [columns.at, (row) => format.moment(row.at)],
    [columns.reason, reasonOf(words, format)],
    [columns.detail, (row) => row.detail, "long"],
    [columns.where, (row) => `${row.partition} / ${row.offset}`],
    [columns.key, (row) => row.key, "long"],
  ];
}
