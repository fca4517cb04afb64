// The list of a person's tasks: views, search, filter, rows. The page and the web component both show this one.

import { UNTOUCHED, button, debounced, element, icon, offer, redraw, webAddress } from "./dom.js";
import { Format } from "./format.js";
import { VIEWS, keyOf } from "./inbox.js";
import { TaskRows } from "./task-rows.js";
import { nothingToShow, problemShown } from "./states.js";

const SEARCH_AFTER_MS = 250;
const ANNOUNCE_AFTER_MS = 400;
/** Of a search, so many items of the view are shown by themselves: what it found in other views is below them. */
const FOUND = 50;

/**
 * Emits "cursor" (`item`) when another row is the current one, "choose" (`item`) when it is clicked or entered. `tools`
 * are elements next to the filters.
 */
export class TaskList extends EventTarget {
  constructor(inbox, words, { views = VIEWS, tools = [] } = {}) {
    super();
    this._tools = tools;
    this._inbox = inbox;
    this._words = words;
    this._views = views;
    this._format = new Format(words.tag);
    this._listening = new AbortController();
    this._arrivals = [];
    this._build();
    const { signal } = this._listening;
    inbox.addEventListener("change", () => this._soon(), { signal });
    inbox.addEventListener("unmarked", () => this.say(words.marks.failed), { signal });
    inbox.addEventListener("arrived", ({ detail }) => this._onArrived(detail.item), { signal });
    // "3 minutes ago" goes on while nothing else happens, and what is hidden comes back.
    this._clock = setInterval(() => {
      this._rows.tick();
      this._soon();
    }, 30_000);
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

  /** To who listens to the page. */
  say(text) {
    this._said.textContent = text;
  }

  /** Whether there was anything to clear. */
  clearSearch() {
    if (this._field.value === "") return false;
    this._field.value = "";
    this._search.cancel();
    this._inbox.narrow({ q: "" });
    return true;
  }

  /** `byAddress`: the address says so already. */
  showView(view, { byAddress = false } = {}) {
    this._rows.mark(null);
    this._inbox.show(view);
    this._scroller.scrollTop = 0;
    if (!byAddress) this.dispatchEvent(new CustomEvent("view", { detail: { view } }));
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
      ...UNTOUCHED,
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
    const toggleOverdue = () => this._inbox.narrow({ overdue: this._inbox.filter.overdue === "" ? "true" : "" });
    this._overdue = button([icon("clock"), words.due.overdue], toggleOverdue, { class: "list-filter overdue-filter", part: "filter" });
    this._rows = new TaskRows(words, this._format, this._inbox);
    for (const type of ["cursor", "choose"]) this._rows.addEventListener(type, ({ detail }) => this.dispatchEvent(new CustomEvent(type, { detail })));
    this._rows.addEventListener("more", ({ detail }) => (detail.view === this._inbox.view ? this._inbox.more() : this.showView(detail.view)));
    this._rows.addEventListener("end", () => this._goOn());
    this._note = element("div", { class: "list-note" });
    this._state = element("div", { class: "list-state" });
    this._foot = element("div", { class: "list-foot note" });
    this._scroller = element("div", { class: "list-scroller", part: "scroller" }, this._note, this._rows.root, this._state, this._foot);
    this._said = element("p", { class: "unseen", role: "status", "aria-live": "polite" });
    this._announce = debounced(() => this._sayArrivals(), ANNOUNCE_AFTER_MS);
    const properties = { class: "list-panel", role: "tabpanel", id: "tb-panel", "aria-labelledby": `tb-tab-${this._inbox.view}` };
    this._panel = element("div", properties, this._scroller);
    this.root = element(
      "section",
      { class: "task-list", part: "list" },
      element("div", { class: "tabs", role: "tablist", "aria-label": words.viewsLabel, part: "tabs" }, ...this._tabs),
      element("div", { class: "list-tools line" }, element("div", { class: "search" }, icon("search"), this._field), this._overdue, this._sources, this._apps, ...this._tools),
      this._panel,
      this._said,
    );
    this._seen = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && this._goOn(), {
      root: this._scroller,
      rootMargin: "400px",
    });
    this._seen.observe(this._foot);
  }

  /** The next page, unless it would move away what was found elsewhere. */
  _goOn() {
    if (!this._endsHere) this._inbox.more();
  }

  get _endsHere() {
    return this._inbox.elsewhere.some(({ items }) => items.length > 0) && this._inbox.items.length >= FOUND;
  }

  _filter(name, kind, label) {
    const change = ({ target }) => this._inbox.narrow({ [name]: target.value });
    return element("select", { class: `list-filter ${kind}`, "aria-label": label, part: "filter", on: { change } });
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
      element("span", { class: "badge tab-count", part: "count" }),
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
    const { view, phase } = this._inbox;
    for (const tab of this._tabs) this._renderTab(tab, tab.dataset.view === view);
    this._panel.setAttribute("aria-labelledby", `tb-tab-${view}`);
    this._panel.setAttribute("aria-busy", String(phase === "loading"));
    this._renderApps();
    const groups = this._groups();
    this._rows.render(groups, this._words.listLabel(this._words.views[view]));
    this._renderNote();
    this._renderState(groups.some(({ items }) => items.length > 0));
  }

  _groups() {
    const { views, marks, more } = this._words;
    const { view, cursor, phase } = this._inbox;
    const { pinned, items, hidden, elsewhere } = this._inbox.groups;
    const named = elsewhere.some((found) => found.items.length > 0) ? views[view] : null;
    const isMore = this._endsHere && cursor !== null && phase === "ready";
    return [
      { name: "pinned", heading: marks.pinned, items: pinned },
      { name: "items", heading: named ?? (pinned.length + hidden.length > 0 ? marks.others : null), items: isMore ? [...items, { more: view, text: more }] : items },
      { name: "hidden", heading: marks.hidden, items: hidden },
      ...elsewhere.map((found) => {
        const further = found.more && found.items.length > 0 ? [{ more: found.view, text: this._words.moreIn(views[found.view]) }] : [];
        return { name: found.view, heading: views[found.view], items: [...found.items, ...further] };
      }),
    ];
  }

  /** How old the list is, if the service cannot be reached; how many are hidden, and a way to see them. */
  _renderNote() {
    const { groups: { hiddenCount }, showsHidden, asOf } = this._inbox;
    const { _words: words, _format: format } = this;
    const toggle = () => button(showsHidden ? words.marks.hide : words.marks.show, () => this._inbox.showHidden(!showsHidden), { data: { keep: "hidden" } });
    redraw(this._note, [hiddenCount, showsHidden, asOf], () => [
      asOf === null ? null : element("p", { class: "as-of line", role: "status" }, words.asOf(format.moment(asOf))),
      hiddenCount > 0 ? element("p", { class: "line" }, words.marks.hiddenCount(hiddenCount), toggle()) : null,
    ]);
  }

  _renderTab(tab, selected) {
    const count = this._inbox.countOf(tab.dataset.view);
    tab.setAttribute("aria-selected", String(selected));
    tab.tabIndex = selected ? 0 : -1;
    const badge = tab.querySelector(".tab-count");
    const text = this._format.count(count);
    if (badge.textContent !== text) badge.textContent = text;
    badge.toggleAttribute("data-zero", !count);
  }

  _renderApps() {
    const { apps, filter, view, items } = this._inbox;
    const { _words: words } = this;
    offer(this._apps, [["", words.allApps], ...apps.labels(words)], filter.app_type).toggleAttribute("data-active", filter.app_type !== "");
    const sources = apps.sources.map((source) => [source, words.sources[source] ?? source]);
    offer(this._sources, [["", words.allSources], ...sources], filter.source).toggleAttribute("data-active", filter.source !== "");
    this._sources.hidden = sources.length === 0;
    const on = filter.overdue !== "";
    // Only where tasks have due times.
    this._overdue.hidden = view !== "pending" || !(on || items.some((item) => item.due_at));
    this._overdue.setAttribute("aria-pressed", String(on));
    this._overdue.toggleAttribute("data-active", on);
  }

  /** What there is in place of rows, and what follows them. */
  _renderState(hasRows) {
    const { phase, items, problem, filled, cursor, loadingMore, isNarrowed, view } = this._inbox;
    const { _words: words } = this;
    const states = {
      failed: () => problemShown(problem, words, () => this._inbox.reload()),
      filling: () => nothingToShow("clock", words.filling(this._format.percent(filled))),
      loading: () => placeholders(words),
      ready: () => hasRows ? null : isNarrowed ? nothingToShow("search", words.noMatch, this._clearButton()) : nothingToShow(view === "pending" ? "check" : "inbox", words.empty[view]),
    };
    redraw(this._state, [phase, problem?.status, filled, hasRows, isNarrowed, view], states[phase]);
    if (cursor !== this._cursorShown && !loadingMore) {
      this._cursorShown = cursor;
      // Observe again: few rows may leave the foot where it was, and then nothing else would say that it is in sight.
      this._seen.unobserve(this._foot);
      this._seen.observe(this._foot);
    }
    const isReady = phase === "ready" && items.length > 0;
    const foot = isReady && cursor !== null && !this._endsHere ? (loadingMore ? "loading" : problem ? "failed" : "more") : isReady && items.length > 20 ? "end" : "none";
    const feet = {
      none: () => null,
      end: () => element("p", {}, words.end(items.length)),
      loading: () => element("p", {}, words.loading),
      failed: () => button(words.retry, () => this._inbox.more()),
      more: () => button(words.more, () => this._inbox.more()),
    };
    redraw(this._foot, [foot, foot === "end" && items.length], feet[foot]);
  }

  _clearButton() {
    return button(this._words.clearFilters, () => {
      this._field.value = "";
      this._inbox.narrow({ q: "", app_type: "", source: "", overdue: "" });
    });
  }

  _onArrived(item) {
    this._rows.arrived(keyOf(item));
    this._arrivals.push(item);
    this._announce();
  }

  _sayArrivals() {
    const arrivals = this._arrivals.splice(0);
    const title = arrivals[0]?.title ?? this._words.untitled;
    this.say(arrivals.length > 1 ? this._words.arrivedMany(arrivals.length) : this._words.arrived(title));
  }
}

/** The approval page of an item, when it has a safe one. */
export const approvalPage = (item) => webAddress(item?.url ?? null);

function placeholders(words) {
  const rows = Array.from({ length: 6 }, () => element("div", { class: "placeholder" }));
  return element("div", { class: "placeholders" }, element("p", { class: "unseen" }, words.loading), ...rows);
}
