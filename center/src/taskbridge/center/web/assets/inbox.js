// One person's task center: what it shows is a state, and the service, its stream and the person make events of it.

import { Latest, Problem, outcome, pathOf, quietly } from "./api.js";
import { Apps } from "./apps.js";
import { debounced } from "./dom.js";
import { EventStream } from "./event-stream.js";
import { INITIAL, OWN_VIEWS, VIEWS, isNarrowed, itemOf, reduce } from "./inbox-state.js";

const PAGE = 50;
const SOON_MS = 150;
/** A tab that nobody looks at gives its connection back: a browser has six for each address. */
const HIDDEN_MS = 60_000;
const HIDDEN_COUNTS_MS = 30_000;

/** Items that a search shows of each view that is not the one that is shown. */
const ELSEWHERE = 5;
/** Items that one request marks: the service takes 64 KiB, and ids may be long. */
const MARKED = 100;

/**
 * Emits "change" whenever something to be shown changed, "arrived" (`item`) for what the stream added to the view that
 * is shown, "instance" (`instanceId`) for every instance that the stream tells something about, "task" (`item`) for
 * every new pending task, and "unmarked" when a mark could not be stored.
 */
export class Inbox extends EventTarget {
  /** `marks`: whether these lists are the reader's own to mark. `searched`: the views that a search looks into. */
  constructor(api, person, { view, filter = {}, marks = false, searched = VIEWS }) {
    super();
    this._api = api;
    this.person = person;
    this.state = { ...INITIAL, view, filter: { ...INITIAL.filter, ...filter } };
    this.hasMarks = marks;
    this._marking = null;
    this._searched = searched;
    /** Whether the stream stays open while nobody looks at the tab. */
    this.staysLive = false;
    /** Those known so far: what the filters offer. */
    this.apps = new Apps();
    this._loading = new Latest();
    this._searching = new Latest();
    this._refreshCounts = debounced(() => this._loadCounts(), SOON_MS);
    this._refreshShown = debounced(() => this._refresh(), SOON_MS);
    this._refreshApps = debounced(() => this._loadApps(), SOON_MS);
    const connect = (lastEventId, signal) => {
      const headers = lastEventId === null ? {} : { "last-event-id": lastEventId };
      return api.open(pathOf(person, "events"), { accept: "text/event-stream", headers, signal });
    };
    this._stream = new EventStream(connect, {
      onState: (live, problem) => this.put("connected", { live, problem }),
      onOpen: (resumed) => this._onOpen(resumed),
      onEvent: (event) => this._onEvent(event),
    });
    this._listeners = new AbortController();
  }

  /** Read the view and follow the stream. What was missed in between is read again. */
  start() {
    const { signal } = this._listeners;
    addEventListener("online", () => this._stream.wake(), { signal });
    addEventListener("offline", () => this._emit("change"), { signal });
    document.addEventListener("visibilitychange", () => this._onVisibility(), { signal });
    this.reload();
    this._refreshApps();
    this._stream.start();
  }

  stop() {
    this._listeners.abort();
    this._loading.cancel();
    this._searching.cancel();
    this._refreshCounts.cancel();
    this._refreshShown.cancel();
    this._refreshApps.cancel();
    clearTimeout(this._hidden);
    clearTimeout(this._again);
    clearInterval(this._hiddenCounts);
    this._stream.stop();
  }

  /**
   * Show a `view`, or of the one that is shown: what has the text `q`, is of the app `app_type`, is from the system
   * `source`, is `overdue` ("true"); empty ones narrow nothing.
   */
  show(changes) {
    const { view, filter } = this.state;
    const before = { view, ...filter };
    if (Object.keys(changes).every((name) => changes[name] === before[name])) return;
    this.put("chosen", changes);
    this.reload();
  }

  /**
   * Mark items, not those of others: shown at once, and as they were if the service refuses. `changes`: `read`, `pinned`,
   * `hidden_until`.
   */
  async mark(items, changes) {
    items = items.filter((item) => !item.on_behalf_of);
    if (!this.hasMarks || items.length === 0) return;
    const { read, ...others } = changes;
    this.put("marked", { items, changes });
    const given = items.map(({ view, instance_id, task_id, updated_at }) => {
      const seen = read === undefined ? {} : { read: read ? updated_at : null };
      return { view, instance_id, task_id, ...seen, ...others };
    });
    const parts = Array.from({ length: Math.ceil(given.length / MARKED) }, (_, index) => given.slice(index * MARKED, (index + 1) * MARKED));
    const marking = Promise.all(parts.map((items) => this._api.send("PUT", pathOf(this.person, "marks"), { items })));
    this._marking = Promise.allSettled([this._marking, marking]);
    const [, problem] = await outcome(marking);
    if (problem === null) return;
    this._emit("unmarked");
    this.reload();
  }

  /** The first page and the counts, from the service. */
  async reload() {
    this._refreshCounts();
    await this._load(null);
    const { live, phase } = this.state;
    if (live === "waiting" && phase === "ready") this._stream.wake();
  }

  /** The next page, when there is one; not while the first one is read again. */
  async more() {
    const { cursor, waiting, phase } = this.state;
    if (cursor !== null && waiting === null && phase === "ready") await this._load(cursor);
  }

  async _load(cursor) {
    clearTimeout(this._again);
    const isMore = cursor !== null;
    if (!isMore) this._searching.cancel();
    this.put("requested", { isMore });
    const request = async (signal) => {
      try {
        const page = await this._page(cursor, signal);
        // What is shown is newer: the stream has changed it.
        if (page.as_of !== undefined && this.state.items.length > 0) throw new Problem(0);
        return page;
      } catch (error) {
        if (error.isFilling) error.filled = await this._api.filled();
        throw error;
      }
    };
    await this._loading.run(request, {
      found: (page) => {
        this.put("loaded", { page, isMore });
        if (!isMore) this._search();
      },
      failed: (problem) => {
        if (problem.isFilling) this._again = setTimeout(() => this.reload(), (problem.retryAfterS ?? 5) * 1000);
        this.put("failed", { problem });
      },
    });
  }

  /** A page with something on it, or the last one: a search looks at so many lines at a time, and may find nothing there. */
  async _page(cursor, signal, { view = this.state.view, limit = PAGE } = {}) {
    const query = { view, limit, marks: this.hasMarks || null, ...this.state.filter };
    const load = (from) => this._afterMarks(() => this._items("tasks", { ...query, cursor: from }, signal));
    let page = await load(cursor);
    while (page.items.length === 0 && page.next_cursor !== null && !signal?.aborted) page = await load(page.next_cursor);
    return page;
  }

  /** What has `items`. A proxy on the way may answer 200 with anything else. */
  async _items(path, query, signal) {
    const found = await this._api.get(pathOf(this.person, path), query, signal);
    if (!Array.isArray(found?.items)) throw new Problem(0);
    return found;
  }

  /** Read the other views once, for the service worker: so that all of them are there offline. */
  async loadOthers() {
    for (const view of VIEWS) if (view !== this.state.view && !isNarrowed(this.state)) await quietly(this._page(null, undefined, { view }));
  }

  /** What `load` resolves with. Again if something was marked meanwhile: it might be as it was before. */
  async _afterMarks(load) {
    for (;;) {
      await this._marking;
      const marking = this._marking;
      const found = await load();
      if (marking === this._marking) return found;
    }
  }

  /** What is shown next to the page. Failing is no harm: the list is there. */
  _search() {
    const { view, filter } = this.state;
    const others = filter.q === "" ? [] : this._searched.filter((other) => other !== view);
    const request = (signal) => Promise.all([
      this.hasMarks ? this._afterMarks(() => this._items("marked", { view }, signal)) : { items: [] },
      ...others.map((other) => this._page(null, signal, { view: other, limit: ELSEWHERE })),
    ]);
    return this._searching.run(request, {
      found: ([marked, ...found]) => {
        const elsewhere = found.map(({ items, next_cursor: next }, index) => {
          return { view: others[index], items: items.slice(0, ELSEWHERE), more: next !== null || items.length > ELSEWHERE };
        });
        this.put("found", { marked: marked.items, elsewhere });
      },
      failed: () => {},
    });
  }

  async _refresh() {
    const page = await quietly(this._page(null));
    if (page !== null) this.put("refreshed", { page });
    if (this.state.waiting === null) this._search();
  }

  async _loadCounts() {
    const counts = await quietly(this._api.get(pathOf(this.person, "counts")));
    if (counts !== null) this.put("counted", { counts });
  }

  /** Also those of lines that are not shown yet. Where it fails, they are missing until the next unknown app. */
  async _loadApps() {
    const found = await quietly(this._items("apps"));
    for (const { app_type: app, process_name: name, source } of found?.items ?? []) this.apps.know(app, name, source);
    this._emit("change");
  }

  _onOpen(resumed) {
    // Resumed: what was missed comes as events. Else it may have happened between the page and the stream.
    if (resumed && this.state.phase === "ready") this._refreshCounts();
    else this.reload();
  }

  _onEvent({ event, data }) {
    // What was missed cannot be sent any more: it was longer ago than the topic keeps.
    if (event === "reset") this.reload();
    if (event !== "notification") return;
    let notification;
    try {
      notification = JSON.parse(data);
    } catch {
      return; // Of a newer service: the next page has what it meant.
    }
    const { view, change, instance_id: instanceId } = notification;
    this._refreshCounts();
    this.put("notified", { notification });
    this._emit("instance", { instanceId });
    if (view === "pending" && change === "ADDED") this._emit("task", { item: itemOf(notification) });
    if (view === this.state.view && OWN_VIEWS.has(view)) this._refreshShown();
  }

  /** An event: only here does the state change. */
  put(type, event) {
    const before = this.state.items;
    this.state = reduce(this.state, { type, ...event });
    const { items, arrived } = this.state;
    for (const { app_type: app, process_name: name, source } of items === before ? [] : items) {
      if (!this.apps.has(app) && !name) this._refreshApps();
      this.apps.know(app, name, source);
    }
    for (const item of arrived) this._emit("arrived", { item });
    this._emit("change");
  }

  _emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  _onVisibility() {
    clearTimeout(this._hidden);
    clearInterval(this._hiddenCounts);
    if (document.visibilityState === "visible") {
      this._stream.start();
      this._stream.wake();
      if (this.hasMarks && this.state.phase === "ready") this._refresh();
      return;
    }
    this._hidden = setTimeout(() => {
      if (this.staysLive) return;
      this._stream.stop();
      this._hiddenCounts = setInterval(() => this._loadCounts(), HIDDEN_COUNTS_MS);
    }, HIDDEN_MS);
  }
}
