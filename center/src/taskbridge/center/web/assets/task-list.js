// The list of a person's tasks: views, search, filter, rows. The page and the web component both show this one.

import { debounced, element, icon, replace, webAddress } from "./dom.js";
import { Format } from "./format.js";
import { VIEWS, keyOf } from "./inbox.js";
import { TaskRows } from "./task-rows.js";
import { nothingToShow, problemShown } from "./states.js";

const SEARCH_AFTER_MS = 250;
const ANNOUNCE_AFTER_MS = 400;

/** Emits "cursor" (`item`) when another row is the current one, "choose" (`item`) when it is clicked or entered. */
export class TaskList extends EventTarget {
  constructor(inbox, words, { views = VIEWS } = {}) {
    super();
    this._inbox = inbox;
    this._words = words;
    this._views = views;
    this._format = new Format(words.tag);
    this._listening = new AbortController();
    this._arrivals = [];
    this._build();
    const { signal } = this._listening;
    inbox.addEventListener("change", () => this._soon(), { signal });
    inbox.addEventListener("arrived", ({ detail }) => this._onArrived(detail.item), { signal });
    // "3 minutes ago" goes on while nothing else happens.
    this._clock = setInterval(() => this._rows.tick(), 30_000);
    this._render();
  }

  dispose() {
    this._listening.abort();
    this._seen.disconnect();
    clearInterval(this._clock);
    this._announce.cancel();
    this._search.cancel();
  }

  /** Put the keyboard on the rows. */
  focus() {
    this._rows.root.focus({ preventScroll: true });
  }

  focusSearch() {
    this._field.focus();
    this._field.select();
  }

  get current() {
    return this._rows.current;
  }

  /** Make a row current without choosing it; null for none. */
  mark(item) {
    this._rows.mark(item === null ? null : keyOf(item));
  }

  move(by) {
    this._rows.move(by);
  }

  /** Whether there was anything to clear. */
  clearSearch() {
    if (this._field.value === "") return false;
    this._field.value = "";
    this._search.cancel();
    this._inbox.narrow({ q: "" });
    return true;
  }

  showView(view) {
    this._rows.mark(null);
    this._inbox.show(view);
    this._scroller.scrollTop = 0;
    this.dispatchEvent(new CustomEvent("view", { detail: { view } }));
  }

  _build() {
    const words = this._words;
    this._tabs = VIEWS.filter((view) => this._views.includes(view)).map((view) => this._tab(view));
    this._search = debounced((q) => this._inbox.narrow({ q: q.trim() }), SEARCH_AFTER_MS);
    this._field = element("input", {
      type: "search",
      class: "search-field",
      placeholder: words.search,
      "aria-label": words.searchLabel,
      autocomplete: "off",
      spellcheck: "false",
      maxlength: "200",
      enterkeyhint: "search",
      part: "search",
      on: {
        input: () => this._search(this._field.value),
        keydown: (event) => this._onSearchKey(event),
      },
    });
    this._field.value = this._inbox.filter.q;
    this._apps = this._filter("app_type", "app-filter", words.appLabel);
    this._sources = this._filter("source", "source-filter", words.sourceLabel);
    this._overdue = element("button", { type: "button", class: "list-filter overdue-filter", part: "filter", on: { click: () => this._toggleOverdue() } }, icon("clock"), words.due.overdue);
    this._rows = new TaskRows(words, this._format, this._inbox);
    this._rows.addEventListener("cursor", ({ detail }) => this._forward("cursor", detail));
    this._rows.addEventListener("choose", ({ detail }) => this._forward("choose", detail));
    this._rows.addEventListener("end", () => this._inbox.more());
    this._state = element("div", { class: "list-state" });
    this._foot = element("div", { class: "list-foot" });
    this._scroller = element("div", { class: "list-scroller", part: "scroller" }, this._rows.root, this._state, this._foot);
    this._said = element("p", { class: "unseen", role: "status", "aria-live": "polite" });
    this._announce = debounced(() => this._sayArrivals(), ANNOUNCE_AFTER_MS);
    this.root = element(
      "section",
      { class: "task-list", part: "list" },
      element("div", { class: "tabs", role: "tablist", "aria-label": words.viewsLabel, part: "tabs" }, ...this._tabs),
      element("div", { class: "list-tools" }, element("div", { class: "search" }, icon("search"), this._field), this._overdue, this._sources, this._apps),
      element("div", { class: "list-panel", role: "tabpanel", id: "tb-panel", "aria-labelledby": `tb-tab-${this._inbox.view}` }, this._scroller),
      this._said,
    );
    this._panel = this.root.querySelector("#tb-panel");
    this._seen = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && this._inbox.more(), {
      root: this._scroller,
      rootMargin: "400px",
    });
    this._seen.observe(this._foot);
  }

  _filter(name, kind, label) {
    const select = element("select", {
      class: `list-filter ${kind}`,
      "aria-label": label,
      part: "filter",
      on: { change: () => this._inbox.narrow({ [name]: select.value }) },
    });
    return select;
  }

  _toggleOverdue() {
    this._inbox.narrow({ overdue: this._inbox.filter.overdue === "" ? "true" : "" });
  }

  _tab(view) {
    const words = this._words;
    return element(
      "button",
      {
        type: "button",
        role: "tab",
        id: `tb-tab-${view}`,
        class: "tab",
        "aria-controls": "tb-panel",
        data: { view },
        part: "tab",
        on: { click: () => this.showView(view), keydown: (event) => this._onTabKey(event, view) },
      },
      element("span", { class: "tab-name" }, words.views[view]),
      element("span", { class: "tab-count", part: "count" }),
    );
  }

  _onTabKey(event, view) {
    const shown = this._tabs.map((tab) => tab.dataset.view);
    const index = shown.indexOf(view);
    const to = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: shown.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    const next = this._tabs[(to + shown.length) % shown.length];
    next.focus();
    this.showView(next.dataset.view);
  }

  _onSearchKey(event) {
    if (event.isComposing) return; // Enter and Escape belong to the input method while it composes Chinese.
    if (event.key === "ArrowDown" || event.key === "Enter") {
      event.preventDefault();
      this.focus();
      if (this._rows.current === null) this._rows.move(1);
    } else if (event.key === "Escape") {
      event.stopPropagation();
      if (!this.clearSearch()) this.focus();
    }
  }

  _forward(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** Many changes of one moment are drawn once. Not by requestAnimationFrame: a hidden tab has none. */
  _soon() {
    if (this._drawing) return;
    this._drawing = true;
    queueMicrotask(() => {
      this._drawing = false;
      if (!this._listening.signal.aborted) this._render();
    });
  }

  _render() {
    const { view, items, phase } = this._inbox;
    for (const tab of this._tabs) this._renderTab(tab, tab.dataset.view === view);
    this._panel.setAttribute("aria-labelledby", `tb-tab-${view}`);
    this._panel.setAttribute("aria-busy", String(phase === "loading"));
    this._renderApps();
    this._rows.render(items, this._words.listLabel(this._words.views[view]));
    this._renderState();
  }

  _renderTab(tab, selected) {
    const count = this._inbox.counts[tab.dataset.view];
    tab.setAttribute("aria-selected", String(selected));
    tab.tabIndex = selected ? 0 : -1;
    const badge = tab.querySelector(".tab-count");
    const text = this._format.count(count);
    if (badge.textContent !== text) badge.textContent = text;
    badge.toggleAttribute("data-zero", !count);
  }

  _renderApps() {
    const { apps, filter, view, items } = this._inbox;
    const known = apps.version;
    if (known !== this._appsShown) {
      this._appsShown = known;
      offer(this._apps, this._words.allApps, apps.labels(this._words));
      offer(this._sources, this._words.allSources, apps.sources.map((source) => [source, this._words.sources[source] ?? source]));
      this._sources.hidden = apps.sources.length === 0;
    }
    choose(this._apps, filter.app_type);
    choose(this._sources, filter.source);
    const on = filter.overdue !== "";
    // Only where tasks have due times.
    this._overdue.hidden = view !== "pending" || !(on || items.some((item) => item.due_at));
    this._overdue.setAttribute("aria-pressed", String(on));
    this._overdue.toggleAttribute("data-active", on);
  }

  _renderState() {
    const { phase, items, problem, filled, cursor, loadingMore, isNarrowed } = this._inbox;
    const words = this._words;
    const states = { failed: `failed ${problem?.status}`, filling: `filling ${filled}`, loading: "loading" };
    const kind = states[phase] ?? (items.length === 0 ? `empty ${isNarrowed} ${this._inbox.view}` : "");
    if (kind !== this._kind) {
      this._kind = kind;
      if (phase === "failed") replace(this._state, problemShown(problem, words, () => this._inbox.reload()));
      else if (phase === "filling") replace(this._state, nothingToShow("clock", words.filling(this._format.percent(filled))));
      else if (phase === "loading") replace(this._state, placeholders(words));
      else if (items.length > 0) replace(this._state);
      else if (isNarrowed) replace(this._state, nothingToShow("search", words.noMatch, this._clearButton()));
      else replace(this._state, nothingToShow(this._inbox.view === "pending" ? "check" : "inbox", words.empty[this._inbox.view]));
    }
    if (cursor !== this._cursorShown && !loadingMore) {
      this._cursorShown = cursor;
      // Observe again: few rows may leave the foot where it was, and then nothing else would say that it is in sight.
      this._seen.unobserve(this._foot);
      this._seen.observe(this._foot);
    }
    const more = phase === "ready" && items.length > 0 && cursor !== null;
    const foot = !more ? (phase === "ready" && items.length > 20 ? "end" : "") : loadingMore ? "loading" : problem ? "failed" : "more";
    const footKey = `${foot} ${foot === "end" ? items.length : ""}`;
    if (footKey === this._footShown) return;
    this._footShown = footKey;
    if (foot === "") replace(this._foot);
    else if (foot === "end") replace(this._foot, element("p", {}, words.end(items.length)));
    else if (foot === "loading") replace(this._foot, element("p", {}, words.loading));
    else replace(this._foot, this._button(foot === "failed" ? words.retry : words.more, () => this._inbox.more()));
  }

  _clearButton() {
    return this._button(this._words.clearFilters, () => {
      this._field.value = "";
      this._inbox.narrow({ q: "", app_type: "", source: "", overdue: "" });
    });
  }

  _button(text, click) {
    return element("button", { type: "button", class: "quiet-button", on: { click } }, text);
  }

  _onArrived(item) {
    this._rows.arrived(keyOf(item));
    this._arrivals.push(item);
    this._announce();
  }

  _sayArrivals() {
    const arrivals = this._arrivals.splice(0);
    const title = arrivals[0]?.title ?? this._words.untitled;
    this._said.textContent = arrivals.length > 1 ? this._words.arrivedMany(arrivals.length) : this._words.arrived(title);
  }
}

/** The approval page of an item, when it has a safe one. */
export const approvalPage = (item) => webAddress(item?.url ?? null);

function offer(select, all, options) {
  replace(select, element("option", { value: "" }, all), ...options.map(([value, text]) => element("option", { value }, text)));
}

function choose(select, value) {
  select.value = value;
  select.toggleAttribute("data-active", value !== "");
}

function placeholders(words) {
  const rows = Array.from({ length: 6 }, () => element("div", { class: "placeholder" }));
  return element("div", { class: "placeholders" }, element("p", { class: "unseen" }, words.loading), ...rows);
}
