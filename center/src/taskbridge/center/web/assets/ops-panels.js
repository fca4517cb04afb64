// The panels of the operator's page, as one description: what each shows of the overview, and how.

import { element, icon, recordsTable } from "./dom.js";
import { noneShown } from "./page-head.js";
import { bars, plot } from "./plots.js";

const LAG_MATTERS_S = 5;
const SILENT = 3; // As the alert ReconcileAppSilent has it.
const WIRE_ACTIONS = { create: "CREATED", complete: "COMPLETED", cancel: "CANCELLED", delete: "DELETED", cc: "COPIED" };
const HISTORY_KINDS = { lag_records: "lag", spool_records: "spool", accepted_per_minute: "accepted", rejected_per_minute: "rejected" };

/**
 * In the order of the page. `part` of the overview is what a panel shows (undefined: it is not there), `content` makes
 * elements of it, and `hint` is said next to the heading. `page` has the words and the format of the reader.
 */
export const PANELS = [
  { name: "flow", part: ({ flow }) => flow, hint: (_, { ops }) => ops.flowHint, content: flowPlot },
  { name: "history", part: ({ history }) => history, content: historyPlots },
  { name: "map", part: ({ partitions, workers }) => ({ partitions, workers }), hint: (_, { ops }) => ops.mapHint, content: workersShown },
  { name: "replicas", part: ({ center }) => center, hint: ({ database }, { ops }) => ops.databases[database], content: replicas },
  { name: "edges", part: ({ edges }) => edges, content: edges },
  { name: "quarantine", part: ({ quarantine }) => quarantine, hint: total, content: setAside(quarantineColumns) },
  { name: "dead-letters", part: ({ dead_letters: letters }) => letters, hint: total, content: setAside(deadLetterColumns) },
  { name: "errors", part: ({ errors }) => errors, content: errors },
  { name: "missed", part: ({ missed }) => missed ?? undefined, hint: (_, { ops }) => ops.missedHint, content: missed },
];

/** A reason in words, next to its code where that is another: commands want the code. */
function reasonTold(reason, { reasons }) {
  return Object.hasOwn(reasons, reason ?? "") ? `${reasons[reason]} ${reason}` : reason;
}

/** What a service says is wrong, in the reader's words as far as they are known. */
export function problemTold(problem, { problems }) {
  const known = Object.keys(problems).filter((each) => problem.includes(each));
  return known.reduce((told, each) => told.replace(each, problems[each]), problem);
}

/** What a callback was posted to do, in words. */
export function actionTold(action, { actions, otherActions }) {
  return actions[WIRE_ACTIONS[action]] ?? otherActions[action] ?? action;
}

export const badge = (state, text) => element("span", { class: "badge", data: { state } }, text);

/** Of an edge, a worker, or a replica. */
function stateShown({ reachable, ready, degraded }, { ops }) {
  const state = !reachable ? "unreachable" : !ready ? "notReady" : degraded ? "degraded" : "ready";
  return badge(state, ops.states[state]);
}

/** That a service cannot be reached, is not ready or has another problem, and why, as far as it says; null where all is well. */
export function serviceSaid(kind, { url, replica = url, reachable, ready, degraded, problem }, ops) {
  const say = ops.notices;
  const service = `${say.services[kind]} ${replica}`;
  const said = !reachable ? say.away(service) : !ready ? say.notReady(service) : degraded ? say.degraded(service) : service;
  if (problem) return say.why(said, problemTold(problem, ops));
  return said === service ? null : said;
}

/** What an operator should know first: `[[level, sentence]]`, the worst on top; empty when all is well. */
export function notices({ edges, workers, partitions, center, missed, webhooks, dead_letters: letters, quarantine }, { ops, format }) {
  const say = ops.notices;
  const found = [];
  const note = (level, sentence) => sentence && found.push([level, sentence]);
  const service = (kind, each, level = "bad") => note(each.reachable ? "warn" : level, serviceSaid(kind, each, ops));
  for (const edge of edges) {
    note(edge.reachable && edge.ready ? "warn" : "bad", serviceSaid("edge", edge, ops));
    if (edge.spool?.records > 0) note("warn", say.spool(format.number(edge.spool.records), format.seconds(edge.spool.oldest_age_s)));
  }
  for (const worker of workers) service("worker", worker);
  const orphans = orphaned(partitions, workers);
  if (orphans.length > 0) note("bad", say.noWorker(orphans.join(", ")));
  for (const { partition, lag_seconds: lag } of partitions) {
    if (lag > LAG_MATTERS_S) note("warn", say.lag(partition, format.seconds(lag)));
  }
  for (const replica of center.replicas) service("replica", replica);
  if (center.filled < 1) note("warn", say.filling(format.percent(center.filled)));
  if (missed) service("reconcile", { ready: true, ...missed }, "warn");
  for (const each of webhooks?.services ?? []) service("webhooks", each);
  for (const { id, state, disabled, failing_since: since, waiting, given_up: givenUp } of webhooks?.endpoints ?? []) {
    if (state === "disabled") note("bad", say.endpointDisabled(id, problemTold(disabled ?? "?", ops)));
    else if (state === "failing") note("warn", say.endpointFailing(id, format.ago(since), format.number(waiting)));
    if (givenUp > 0) note("warn", say.givenUp(id, format.number(givenUp)));
  }
  for (const { app_type: app, since, missing } of missed?.silent ?? []) {
    if (missing >= SILENT) note("bad", say.silent(app, format.ago(since), format.number(missing)));
  }
  if (letters.total > 0) note("warn", say.deadLetters(format.number(letters.total)));
  if (quarantine.total > 0) note("info", say.quarantine(format.number(quarantine.total)));
  const order = ["bad", "warn", "info"];
  return found.toSorted((one, other) => order.indexOf(one[0]) - order.indexOf(other[0]));
}

/** Partitions that nobody says to work on. They are numbered from zero, so a gap is one, and so is a standby's own. */
function orphaned(partitions, workers) {
  const worked = new Set(partitions.filter(({ worker }) => worker).map(({ partition }) => partition));
  const seen = [...partitions.map(({ partition }) => partition), ...workers.flatMap(({ standby }) => standby ?? [])];
  return Array.from({ length: Math.max(-1, ...seen) + 1 }, (_, number) => number).filter((number) => !worked.has(number));
}

export function noticesShown(found, { ops }) {
  const notice = ([level, sentence]) => element("li", { class: "strip", data: { level } }, icon(level === "info" ? "clock" : "warning"), element("span", {}, sentence));
  const well = () => element("li", { class: "well strip" }, icon("check"), element("b", {}, ops.well), element("span", {}, ops.wellText));
  return found.length > 0 ? found.map(notice) : [well()];
}

function flowPlot({ minutes, actions }, { ops, format }) {
  const series = Object.entries(ops.actions).map(([action, name]) => ({ name, kind: action.toLowerCase(), values: actions[action] ?? [] }));
  const summary = (values) => values.reduce((sum, value) => sum + value, 0);
  return plot({ times: minutes, series, summary, label: ops.headings.flow, help: ops.plotHelp, format });
}

function historyPlots(history, { ops, format }) {
  const plots = Object.entries(ops.histories).map(([name, label]) => {
    const series = [{ kind: HISTORY_KINDS[name], values: (history[name] ?? []).map(Number) }];
    const summary = (values) => values.at(-1) ?? 0;
    return element("div", {}, element("h3", {}, label), plot({ times: history.times, series, summary, label, help: ops.plotHelp, format }));
  });
  return element("div", { class: "plots" }, ...plots);
}

/** Which partitions each worker works on, how far behind they are, and for which it stands by. */
function workersShown({ partitions, workers }, page) {
  const { ops, format } = page;
  const known = new Map(partitions.map((each) => [each.partition, each]));
  const partition = (number) => {
    const { lag_records: records, lag_seconds: seconds } = known.get(number) ?? {};
    const behind = records > 0 ? `: ${format.number(records)} (${format.seconds(seconds)})` : "";
    return badge(seconds > LAG_MATTERS_S ? "notReady" : "working", `${number}${behind}`);
  };
  const columns = [
    [ops.worker, (row) => element("span", { class: "line mono" }, row.url, stateShown(row, page)), "row"],
    [ops.active, ({ active }) => element("span", { class: "line" }, ...(active ?? []).map(partition)), "long"],
    [ops.standby, ({ standby }) => standby?.join(", "), "long"],
    [ops.since, (row) => format.ago(row.since)],
  ];
  return recordsTable(ops.headings.map, columns, workers);
}

/** The replicas of the task center itself. */
function replicas({ replicas: rows }, page) {
  const { ops, format } = page;
  const columns = [
    [ops.replica, (row) => row.replica],
    [page.words.columns.status, (row) => stateShown(row, page)],
    [ops.lag, (row) => format.number(row.lag_records)],
    [ops.connections, (row) => format.number(row.sse_connections)],
    [ops.since, (row) => format.ago(row.since)],
  ];
  return recordsTable(ops.headings.replicas, columns, rows);
}

function edges(found, page) {
  const { ops, format } = page;
  if (found.length === 0) return element("p", { class: "faint" }, ops.none);
  return found.map((edge) => {
    const { url, problem, outcomes = {}, spool } = edge;
    const outcome = ([name, number]) => (name === "accepted" ? [ops.accepted, number, "accepted"] : [reasonTold(name, ops), number, "rejected"]);
    const waiting = spool?.records > 0 ? [format.number(spool.records), format.bytes(spool.bytes), format.seconds(spool.oldest_age_s)].join(" · ") : null;
    return element(
      "article",
      { class: "edge" },
      element("h3", { class: "line" }, element("bdi", { class: "mono" }, url), stateShown(edge, page)),
      problem ? element("p", { class: "edge-problem" }, element("bdi", {}, problemTold(problem, ops))) : null,
      bars(greatestFirst(outcomes ?? {}).map(outcome), format),
      element("p", { class: "edge-spool line" }, element("span", { class: "faint" }, ops.spoolName), waiting ? element("b", {}, waiting) : ops.spoolEmpty),
    );
  });
}

const greatestFirst = (counts) => Object.entries(counts).toSorted((one, other) => other[1] - one[1]);

function total(found, { ops, format }) {
  return isNothing(found) ? null : ops.total(format.number(found.total));
}

const isNothing = ({ total, latest }) => total + latest.length === 0;

/** How many records were set aside for which reason, and the latest of them. */
function setAside(columns) {
  return (found, page, name) => {
    const { ops, format } = page;
    if (isNothing(found)) return noneShown(ops.nothing[name]);
    const reasons = greatestFirst(found.reasons).map(([reason, number]) => [reasonTold(reason, ops), number, "rejected"]);
    return [bars(reasons, format), found.latest.length > 0 ? recordsTable(ops.headings[name], columns(page), found.latest) : null];
  };
}

/** Why an entry was set aside, and when it was replayed. */
const reasonOf = ({ ops, format }) => ({ reason, replayed_at: at }) => {
  return at ? `${reasonTold(reason, ops)} (${ops.replayed(format.moment(at))})` : reasonTold(reason, ops);
};

export function quarantineColumns(page) {
  const { columns } = page.words;
  return [
    [columns.at, (row) => page.format.moment(row.received_at)],
    [columns.action, (row) => actionTold(row.action, page.ops)],
    [columns.reason, reasonOf(page)],
    [columns.app, (row) => row.app_type, "long"],
    [columns.from, (row) => row.remote_address],
  ];
}

export function deadLetterColumns(page) {
  const { columns } = page.words;
  return [
    [columns.at, (row) => page.format.moment(row.at)],
    [columns.reason, reasonOf(page)],
    [columns.detail, (row) => row.detail, "long"],
    [columns.where, (row) => `${row.partition} / ${row.offset}`],
    [columns.key, (row) => row.key, "long"],
  ];
}

function errors(found, { ops, format, words: { columns: named } }) {
  const columns = [
    [named.at, (row) => format.moment(row.at)],
    [ops.worker, (row) => row.worker],
    [named.detail, (row) => row.message, "long"],
  ];
  return found.length > 0 ? recordsTable(ops.headings.errors, columns, found) : noneShown(ops.nothing.errors);
}

function missed(found, { ops, format, words: { columns: named } }) {
  const columns = [
    [named.day, (row) => row.day],
    [named.app, (row) => row.app_type],
    [named.missing, (row) => format.number(row.missing)],
    [named.added, (row) => format.number(row.added)],
  ];
  if (!found.reachable) return serviceSaid("reconcile", found, ops);
  return found.days.length > 0 ? recordsTable(ops.headings.missed, columns, found.days) : noneShown(ops.nothing.missed);
}
