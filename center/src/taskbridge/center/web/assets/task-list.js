// The list of a person's tasks: views, search, filter, rows. The page and the web component both show this one.

import { UNTOUCHED, button, debounced, element, focusByKey, icon, offer, redraw, webAddress } from "./dom.js";
import { Format } from "./format.js";
import { VIEWS, countOf, groupsOf, isNarrowed } from "./inbox-state.js";
import { taskRows } from "./task-rows.js";
import { nothingToShow, problemShown } from "./states.js";

const SEARCH_AFTER_MS = 250;
const ANNOUNCE_AFTER_MS = 400;
const TICK_MS = 30_000;
/** Of a search, so many items of the view are shown by themselves: what it found in other views is below them. */
const FOUND = 50;

/**
 * Calls `onCursor(item)` when another row is the current one, `onChoose(item, byKeyboard)` when one is clicked or
 * entered, and `onView(view)`. `tools` are elements next to the filters.
 */
export function taskList(inbox, words, { views = VIEWS, tools = [], onCursor = () => {}, onChoose, onView = () => {} }) {
  const format = new Format(words.tag);
  const listening = new AbortController();
  const arrivals = [];
  const rows = taskRows(words, format, inbox, {
    cursor: onCursor,
    choose: onChoose,
    more: (view) => (view === inbox.state.view ? inbox.more() : showView(view)),
    end: goOn,
  });

  const search = debounced((q) => inbox.show({ q: q.trim() }), SEARCH_AFTER_MS);
  const field = element("input", {
    type: "search",
    placeholder: words.search,
    "aria-label": words.searchLabel,
    ...UNTOUCHED,
    maxlength: "200",
    enterkeyhint: "search",
    part: "search",
    on: { input: () => search(field.value), keydown: onSearchKey },
  });
  field.value = inbox.state.filter.q;
  const filter = (name, kind, label) => {
    const change = ({ target }) => inbox.show({ [name]: target.value });
    return element("select", { class: `list-filter ${kind}`, "aria-label": label, part: "filter", on: { change } });
  };
  const apps = filter("app_type", "app-filter", words.appLabel);
  const sources = filter("source", "source-filter", words.sourceLabel);
  const toggleOverdue = () => inbox.show({ overdue: inbox.state.filter.overdue === "" ? "true" : "" });
  const overdue = button([icon("clock"), words.due.overdue], toggleOverdue, { class: "quiet-button list-filter", part: "filter" });

  const tabs = VIEWS.filter((view) => views.includes(view)).map(tab);
  const note = element("div", { class: "list-note" });
  const state = element("div", { class: "list-state" });
  const foot = element("div", { class: "list-foot note" });
  const scroller = element("div", { class: "list-scroller", part: "scroller" }, note, rows.root, state, foot);
  const panel = element("div", { class: "list-panel", role: "tabpanel", id: "tb-panel" }, scroller);
  const said = element("p", { class: "unseen", role: "status", "aria-live": "polite" });
  const root = element(
    "section",
    { class: "task-list", part: "list" },
    element("div", { class: "tabs strip", role: "tablist", "aria-label": words.viewsLabel, part: "tabs" }, ...tabs),
    element("div", { class: "list-tools line" }, element("div", { class: "search" }, icon("search"), field), overdue, sources, apps, ...tools),
    panel,
    said,
  );
  const seen = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && goOn(), { root: scroller, rootMargin: "400px" });
  seen.observe(foot);
  let cursorShown;
  let isDrawing = false;

  const announce = debounced(() => {
    const [{ title }, ...others] = arrivals.splice(0);
    say(others.length > 0 ? words.arrivedMany(others.length + 1) : words.arrived(title ?? words.untitled));
  }, ANNOUNCE_AFTER_MS);
  const { signal } = listening;
  inbox.addEventListener("change", soon, { signal });
  inbox.addEventListener("unmarked", () => say(words.marks.failed), { signal });
  inbox.addEventListener("arrived", ({ detail: { item } }) => {
    rows.arrived(item);
    arrivals.push(item);
    announce();
  }, { signal });
  // "3 minutes ago" goes on while nothing else happens, and what is hidden comes back.
  const clock = setInterval(() => {
    rows.tick();
    soon();
  }, TICK_MS);
  render();

  function dispose() {
    listening.abort();
    seen.disconnect();
    clearInterval(clock);
    announce.cancel();
    search.cancel();
  }

  /** To who listens to the page. */
  function say(text) {
    said.textContent = text;
  }

  /** Put the keyboard on the rows. */
  function focus() {
    rows.root.focus({ preventScroll: true });
  }

  /** Whether there was anything to clear. */
  function clearSearch() {
    if (field.value === "") return false;
    field.value = "";
    search.cancel();
    inbox.show({ q: "" });
    return true;
  }

  /** `byAddress`: the address says so already. */
  function showView(view, { byAddress = false } = {}) {
    rows.mark(null);
    inbox.show({ view });
    scroller.scrollTop = 0;
    if (!byAddress) onView(view);
  }

  /** The next page, unless it would move away what was found elsewhere. */
  function goOn() {
    if (!endsHere()) inbox.more();
  }

  function endsHere() {
    const { elsewhere, items } = inbox.state;
    return elsewhere.some((found) => found.items.length > 0) && items.length >= FOUND;
  }

  function tab(view) {
    return element(
      "button",
      {
        ...{ type: "button", role: "tab", id: `tb-tab-${view}`, class: "tab strip", "aria-controls": "tb-panel", part: "tab" },
        data: { view },
        on: { click: () => showView(view), keydown: onTabKey },
      },
      words.views[view],
      element("span", { class: "badge tab-count", part: "count" }),
    );
  }

  function onTabKey(event) {
    const next = focusByKey(event, tabs, ["ArrowLeft", "ArrowRight"]);
    if (next) showView(next.dataset.view);
  }

  function onSearchKey(event) {
    if (event.isComposing) return; // Enter and Escape belong to the input method while it composes Chinese.
    if (event.key === "ArrowDown" || event.key === "Enter") {
      event.preventDefault();
      focus();
      if (rows.current === null) rows.move(1);
    } else if (event.key === "Escape") {
      event.stopPropagation();
      if (!clearSearch()) focus();
    }
  }

  /** Many changes of one moment are drawn once. Not by requestAnimationFrame: a hidden tab has none. */
  function soon() {
    if (isDrawing) return;
    isDrawing = true;
    queueMicrotask(() => {
      isDrawing = false;
      if (!signal.aborted) render();
    });
  }

  function render() {
    const { view, phase } = inbox.state;
    for (const each of tabs) renderTab(each, each.dataset.view === view);
    panel.setAttribute("aria-labelledby", `tb-tab-${view}`);
    panel.setAttribute("aria-busy", String(phase === "loading"));
    renderFilters();
    const shown = groups();
    rows.render(shown, words.listLabel(words.views[view]));
    renderNote();
    renderState(shown.some(({ items }) => items.length > 0));
    renderFoot();
  }

  function renderTab(made, isSelected) {
    const count = countOf(inbox.state, made.dataset.view);
    made.setAttribute("aria-selected", String(isSelected));
    made.tabIndex = isSelected ? 0 : -1;
    const badge = made.lastElementChild;
    badge.textContent = format.count(count);
    badge.toggleAttribute("data-zero", !count);
  }

  function renderFilters() {
    const { filter: chosen, view, items } = inbox.state;
    offer(apps, [["", words.allApps], ...inbox.apps.labels(words)], chosen.app_type).toggleAttribute("data-active", chosen.app_type !== "");
    const named = inbox.apps.sources.map((source) => [source, words.sources[source] ?? source]);
    offer(sources, [["", words.allSources], ...named], chosen.source).toggleAttribute("data-active", chosen.source !== "");
    sources.hidden = named.length === 0;
    const isOn = chosen.overdue !== "";
    // Only where tasks have due times.
    overdue.hidden = view !== "pending" || !(isOn || items.some((item) => item.due_at));
    overdue.setAttribute("aria-pressed", String(isOn));
    overdue.toggleAttribute("data-active", isOn);
  }

  function groups() {
    const { view, cursor, phase } = inbox.state;
    const { pinned, items, hidden, elsewhere } = groupsOf(inbox.state);
    const named = elsewhere.some((found) => found.items.length > 0) ? words.views[view] : null;
    const isMore = endsHere() && cursor !== null && phase === "ready";
    return [
      { name: "pinned", heading: words.marks.pinned, items: pinned },
      {
        name: "items",
        heading: named ?? (pinned.length + hidden.length > 0 ? words.marks.others : null),
        items: isMore ? [...items, { more: view, text: words.more }] : items,
      },
      { name: "hidden", heading: words.marks.hidden, items: hidden },
      ...elsewhere.map((found) => {
        const heading = words.views[found.view];
        const further = found.more && found.items.length > 0 ? [{ more: found.view, text: words.moreIn(heading) }] : [];
        return { name: found.view, heading, items: [...found.items, ...further] };
      }),
    ];
  }

  /** How old the list is, if the service cannot be reached; how many are hidden, and a way to see them. */
  function renderNote() {
    const { showsHidden, asOf } = inbox.state;
    const { hiddenCount } = groupsOf(inbox.state);
    const toggle = () => button(showsHidden ? words.marks.hide : words.marks.show, () => inbox.put("toggled", { showsHidden: !showsHidden }), { data: { keep: "hidden" } });
    redraw(note, [hiddenCount, showsHidden, asOf], () => [
      asOf === null ? null : element("p", { class: "as-of line note", role: "status" }, words.asOf(format.moment(asOf))),
      hiddenCount > 0 ? element("p", { class: "line note" }, words.marks.hiddenCount(hiddenCount), toggle()) : null,
    ]);
  }

  /** What there is in place of rows. */
  function renderState(hasRows) {
    const { phase, problem, filled, view } = inbox.state;
    const narrowed = isNarrowed(inbox.state);
    const states = {
      failed: () => problemShown(problem, words, () => inbox.reload()),
      filling: () => nothingToShow("clock", words.filling(format.percent(filled))),
      loading: () => element("p", { class: "loading" }, words.loading),
      ready: () => hasRows ? null : narrowed ? nothingToShow("search", words.noMatch, button(words.clearFilters, clearFilters)) : nothingToShow(view === "pending" ? "check" : "inbox", words.empty[view]),
    };
    redraw(state, [phase, problem?.status, filled, hasRows, narrowed, view], states[phase]);
  }

  function clearFilters() {
    field.value = "";
    inbox.show({ q: "", app_type: "", source: "", overdue: "" });
  }

  /** What follows the rows. */
  function renderFoot() {
    const { phase, items, problem, cursor, loadingMore, waiting } = inbox.state;
    const reached = waiting === null && problem === null ? cursor : undefined;
    if (reached !== cursorShown) {
      cursorShown = reached;
      // Observe again: few rows may leave the foot where it was, and then nothing else would say that it is in sight.
      seen.unobserve(foot);
      seen.observe(foot);
    }
    const isReady = phase === "ready" && items.length > 0;
    const shown = isReady && cursor !== null && !endsHere() ? (loadingMore ? "loading" : problem ? "failed" : "more") : isReady && items.length > 20 ? "end" : "none";
    const feet = {
      none: () => null,
      end: () => words.end(items.length),
      loading: () => words.loading,
      failed: () => button(words.retry, () => inbox.more()),
      more: () => button(words.more, () => inbox.more()),
    };
    redraw(foot, [shown, shown === "end" && items.length], feet[shown]);
  }

  return {
    ...{ root, dispose, say, focus, clearSearch, showView },
    get current() {
      return rows.current;
    },
    focusSearch() {
      field.focus();
      field.select();
    },
    mark: rows.mark,
    move: rows.move,
  };
}

/** The approval page of an item, when it has a safe one. */
export const approvalPage = (item) => webAddress(item?.url ?? null);
