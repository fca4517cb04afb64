// The list of a person's tasks: views, search, filter, rows. The page and the web component both show this one.

import { debounced, element, icon, replace, webAddress } from "./dom.js";
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
    this._rows.addEventListener("more", ({ detail }) => (detail.view === this._inbox.view ? this._inbox.more() : this.showView(detail.view)));
    this._rows.addEventListener("end", () => this._goOn());
    this._note = element("div", { class: "list-note" });
    this._state = element("div", { class: "list-state" });
    this._foot = element("div", { class: "list-foot" });
    this._scroller = element("div", { class: "list-scroller", part: "scroller" }, this._note, this._rows.root, this._state, this._foot);
    this._said = element("p", { class: "unseen", role: "status", "aria-live": "polite" });
    this._announce = debounced(() => this._sayArrivals(), ANNOUNCE_AFTER_MS);
    this.root = element(
      "section",
      { class: "task-list", part: "list" },
      element("div", { class: "tabs", role: "tablist", "aria-label": words.viewsLabel, part: "tabs" }, ...this._tabs),
      element("div", { class: "list-tools" }, element("div", { class: "search" }, icon("search"), this._field), this._overdue, this._sources, this._apps, ...this._tools),
      element("div", { class: "list-panel", role: "tabpanel", id: "tb-panel", "aria-labelledby": `tb-tab-${this._inbox.view}` }, this._scroller),
      this._said,
    );
    this._panel = this.root.querySelector("#tb-panel");
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
    const { groups, showsHidden, asOf } = this._inbox;
    const key = `${groups.hiddenCount} ${showsHidden} ${asOf}`;
    if (key === this._noteShown) return;
    this._noteShown = key;
    const { hiddenCount } = this._words.marks;
    const hadFocus = this._note.contains(document.activeElement);
    const button = this._button(showsHidden ? this._words.marks.hide : this._words.marks.show, () => this._inbox.showHidden(!showsHidden));
    replace(
      this._note,
      asOf === null ? null : element("p", { class: "as-of", role: "status" }, this._words.asOf(this._format.moment(asOf))),
      groups.hiddenCount > 0 ? element("p", {}, hiddenCount(groups.hiddenCount), button) : null,
    );
    if (hadFocus) button.focus();
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

  _renderState(hasRows) {
    const { phase, items, problem, filled, cursor, loadingMore, isNarrowed } = this._inbox;
    const words = this._words;
    const states = { failed: `failed ${problem?.status}`, filling: `filling ${filled}`, loading: "loading" };
    const kind = states[phase] ?? (!hasRows ? `empty ${isNarrowed} ${this._inbox.view}` : "");
    if (kind !== this._kind) {
      this._kind = kind;
      if (phase === "failed") replace(this._state, problemShown(problem, words, () => this._inbox.reload()));
      else if (phase === "filling") replace(this._state, nothingToShow("clock", words.filling(this._format.percent(filled))));
      else if (phase === "loading") replace(this._state, placeholders(words));
      else if (hasRows) replace(this._state);
      else if (isNarrowed) replace(this._state, nothingToShow("search", words.noMatch, this._clearButton()));
      else replace(this._state, nothingToShow(this._inbox.view === "pending" ? "check" : "inbox", words.empty[this._inbox.view]));
    }
    if (cursor !== this._cursorShown && !loadingMore) {
      this._cursorShown = cursor;
      // Observe again: few rows may leave the foot where it was, and then nothing else would say that it is in sight.
      this._seen.unobserve(this._foot);
      this._seen.observe(this._foot);
    }
    const more = phase === "ready" && items.length > 0 && cursor !== null && !this._endsHere;
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
    this.say(arrivals.length > 1 ? this._words.arrivedMany(arrivals.length) : this._words.arrived(title));
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
