// The operator's page: the overview, every few seconds, and one search.

import { Problem } from "./api.js";
import { element, replace } from "./dom.js";
import { Format } from "./format.js";
import {
  deadLetterColumns,
  edgesShown,
  flowPlot,
  historyPlots,
  missedColumns,
  noneShown,
  notices,
  noticesShown,
  panel,
  partitionMap,
  quarantineColumns,
  reasonsShown,
  replicaColumns,
  rowsShown,
} from "./ops-panels.js";
import { CallbackSearch } from "./ops-search.js";
import { WebhooksPanel } from "./ops-webhooks.js";
import { liveSign, ownLink, pageHead } from "./page-head.js";
import { pageApi, signInOperator } from "./sign-in.js";
import { problemShown } from "./states.js";
import { OPS_WORDS } from "./words-ops.js";
import { chosenWords } from "./words.js";

const EVERY_MS = 5000;

class Operation {
  constructor(root, api) {
    this._root = root;
    this._api = api;
    this._overview = null;
    this._parts = new Map();
  }

  start() {
    this.draw(chosenWords());
    const sought = readAddress();
    if (sought !== "") this._search.find(sought);
    this._refresh();
    addEventListener("online", () => this._refresh());
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this._refresh());
  }

  draw(words) {
    const sought = this._search?.sought ?? "";
    this._words = words;
    this._ops = OPS_WORDS[words.tag];
    this._format = new Format(words.tag);
    this._live = liveSign({ ...words.live, ...this._ops.live });
    this._search = new CallbackSearch(this._api, words, this._ops, this._format);
    this._webhooks = new WebhooksPanel(this._api, words, this._ops, this._format, () => this._refresh());
    this._panels = element("div", { class: "panels" });
    this._parts.clear();
    document.title = `${this._ops.title} · taskbridge`;
    const head = pageHead(words, {
      title: this._ops.title,
      own: [this._live.root],
      other: [ownLink("/waiting", words.waiting.title), ownLink("/", words.tasks)],
      onLanguage: (next) => this.draw(next),
    });
    replace(this._root, head, element("main", { class: "operation" }, this._search.root, this._panels));
    if (sought !== "") this._search.find(sought);
    this._live.show("connecting");
    if (this._overview !== null) this._show();
  }

  async _refresh() {
    clearTimeout(this._next);
    this._asking?.abort();
    const asking = new AbortController();
    this._asking = asking;
    try {
      const overview = await this._api.overview(asking.signal);
      if (asking.signal.aborted) return;
      this._overview = overview;
      this._show();
      this._live.show("live");
    } catch (error) {
      if (asking.signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      // The token was taken back: the page asks for another.
      if (error.isRefusal) location.reload();
      this._live.show("waiting");
      if (this._overview === null) replace(this._panels, problemShown(error, this._words, () => this._refresh()));
    }
    // Nobody reads a hidden page: it goes on when it is looked at.
    if (document.visibilityState === "visible") this._next = setTimeout(() => this._refresh(), EVERY_MS);
  }

  /** Only what changed is drawn again, and no plot while somebody reads its values. */
  _show() {
    const { _overview: overview, _ops: ops, _format: format } = this;
    const told = [
      ["notices", notices(overview, ops, format), (found) => noticesShown(found, ops)],
      ["flow", overview.flow, (flow) => panel("flow", ops.flow, ops.flowHint, flowPlot(flow, ops, format))],
      ["history", overview.history, (history) => this._historyPanel(history)],
      ["map", [overview.partitions, overview.workers], () => panel("map", ops.map, ops.mapHint, partitionMap(overview, ops, format))],
      ["center", overview.center, (center) => panel("replicas", ops.center, ops.databases[center.database], rowsShown(center.replicas, replicaColumns(ops, format), ops.center))],
      ["edges", overview.edges, (edges) => panel("edges", ops.edges, null, ...edgesShown(edges, ops, format))],
      ["quarantine", overview.quarantine, (found) => this._parked("quarantine", ops.quarantine, found, quarantineColumns(ops, format), ops.noQuarantine)],
      ["dead-letters", overview.dead_letters, (found) => this._parked("dead-letters", ops.deadLetters, found, deadLetterColumns(ops, format), ops.noDeadLetters)],
      ["errors", overview.errors, (errors) => this._errors(errors)],
      // Only where somebody looks for it.
      ...(overview.missed ? [["missed", overview.missed, (missed) => this._missed(missed)]] : []),
      ...(overview.webhooks ? [["webhooks", overview.webhooks, (found) => this._webhooks.draw(found)]] : []),
    ];
    if (this._parts.size === 0) replace(this._panels);
    for (const [name, part, draw] of told) this._part(name, JSON.stringify(part), () => draw(part));
  }

  _part(name, signature, draw) {
    const known = this._parts.get(name);
    if (known?.signature === signature || known?.root.matches(".panel:has(.plot-area:focus, .plot-area:hover, .table-scroller:focus)")) return;
    const root = draw();
    if (known) {
      const focused = known.root.querySelector(":focus")?.dataset.key;
      const scrolled = tablesOf(known.root).map(({ scrollLeft, scrollTop }) => [scrollLeft, scrollTop]);
      known.root.replaceWith(root);
      // Who has scrolled a table to its last columns is not thrown back to the first every few seconds.
      for (const [number, table] of tablesOf(root).entries()) table.scrollTo(...(scrolled[number] ?? [0, 0]));
      if (focused) root.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
    } else {
      this._panels.append(root);
    }
    this._parts.set(name, { signature, root });
  }

  _historyPanel(history) {
    const plots = historyPlots(history, this._ops, this._format);
    return panel(
      "history",
      this._ops.history,
      null,
      element("div", { class: "plots" }, ...plots.map(({ label, plot }) => element("div", { class: "small-plot" }, element("h3", {}, label), plot))),
    );
  }

  _parked(kind, heading, found, columns, none) {
    if (found.total + found.latest.length === 0) return panel(kind, heading, null, noneShown(none));
    const rows = found.latest.length > 0 ? rowsShown(found.latest, columns, heading) : null;
    return panel(kind, heading, this._ops.total(this._format.number(found.total)), reasonsShown(found, this._ops, this._format), rows);
  }

  _missed({ url, reachable, days }) {
    const heading = this._ops.missed;
    const rows = () => rowsShown(days, missedColumns(this._ops, this._format), heading);
    const content = !reachable ? this._ops.notices.reconcileDown(url) : days.length > 0 ? rows() : noneShown(this._ops.noMissed);
    return panel("missed", heading, this._ops.missedHint, content);
  }

  _errors(errors) {
    const { columns } = this._ops;
    const shown = [
      [columns.at, (row) => this._format.moment(row.at)],
      [this._ops.worker, (row) => row.worker],
      [columns.detail, (row) => row.message, "long"],
    ];
    const content = errors.length > 0 ? rowsShown(errors, shown, this._ops.errors) : noneShown(this._ops.noErrors);
    return panel("errors", this._ops.errors, null, content);
  }
}

const tablesOf = (root) => [...root.querySelectorAll(".table-scroller")];

/** The id behind `#`, as it was given; as it stands where somebody cut the link in the middle of a character. */
function readAddress() {
  const given = location.hash.slice(1);
  try {
    return decodeURIComponent(given);
  } catch {
    return given;
  }
}

async function main() {
  const root = document.querySelector("#page");
  const api = pageApi();
  await signInOperator(api, root, chosenWords());
  new Operation(root, api).start();
}

main();
