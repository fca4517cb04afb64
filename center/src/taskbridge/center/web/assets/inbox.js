// One person's task center as it stands: a view's items, the counts, and what the stream says about both.

import { Problem, pathOf, quietly } from "./api.js";
import { Apps } from "./apps.js";
import { debounced, webAddress } from "./dom.js";
import { EventStream } from "./event-stream.js";

export const VIEWS = ["pending", "handled", "created", "copied"];

const PAGE = 50;
const COUNTS_AFTER_MS = 150;
const APPS_AFTER_MS = 150;
/** A tab that nobody looks at gives its connection back: a browser has six for each address. */
const HIDDEN_MS = 60_000;
const HIDDEN_COUNTS_MS = 30_000;

/** Items that a search shows of each view that is not the one that is shown. */
const ELSEWHERE = 5;
/** Items that one request marks: the service takes 64 KiB, and ids may be long. */
const MARKED = 100;
const UNMARKED = { read: false, pinned: false, hidden_until: null };

/** Of what the person did: it is no news. */
export const OWN_VIEWS = new Set(["handled", "created"]);

export const keyOf = (item) => `${item.view}\n${item.instance_id}\n${item.task_id ?? ""}`;

/**
 * Emits "change" whenever something to be shown changed, "arrived" (`item`) for what the stream added to the view that
 * is shown, "instance" (`instanceId`) for every instance that the stream tells something about, "task" (`item`) for
 * every new pending task, and "unmarked" when a mark could not be stored.
 */
export class Inbox extends EventTarget {
  /** `marks`: whether these lists are the reader's own to mark. `searched`: the views that a search looks into. */
  constructor(api, person, { marks = false, searched = VIEWS } = {}) {
    super();
    this._api = api;
    this.person = person;
    this.view = "pending";
    this.filter = { app_type: "", source: "", q: "", overdue: "" };
    this.items = [];
    this.cursor = null;
    /** "loading": nothing to show yet; "ready"; "filling": the service is `filled` to this share; "failed": see `problem`. */
    this.phase = "loading";
    this.filled = null;
    this.loadingMore = false;
    this.problem = null;
    /** Of a list from the last time that the service was reached, when that was; else null. */
    this.asOf = null;
    this.hasMarks = marks;
    /** The pinned and hidden ones of the view, wherever they are in it. */
    this.marked = [];
    this.showsHidden = false;
    this._marking = null;
    this._searched = searched;
    /** What a search found in other views: `{view, items, more}`. */
    this.elsewhere = [];
    this.counts = {};
    /** Keys of items that the person acted on, until that is confirmed: they wait for nobody here. */
    this._sent = new Set();
    /** Keys of those that left the list since: what is asked about them may be answered late. */
    this._left = new Set();
    /** Whether the stream stays open while nobody looks at the tab. */
    this.staysLive = false;
    this.live = "connecting";
    /** Those known so far: what the filters offer. */
    this.apps = new Apps();
    this._loading = null;
    this._waiting = [];
    this._refreshCounts = debounced(() => this._loadCounts(), COUNTS_AFTER_MS);
    this._refreshShown = debounced(() => this._loadAdded(), COUNTS_AFTER_MS);
    this._refreshApps = debounced(() => this._loadApps(), APPS_AFTER_MS);
    const connect = (lastEventId, signal) => {
      const headers = lastEventId === null ? {} : { "last-event-id": lastEventId };
      return api.open(pathOf(person, "events"), { accept: "text/event-stream", headers, signal });
    };
    this._stream = new EventStream(connect, {
      onState: (state, problem) => this._onState(state, problem),
      onOpen: (resumed) => this._onOpen(resumed),
      onEvent: (event) => this._onEvent(event),
    });
    this._listeners = null;
  }

  /** Read the view and follow the stream. What was missed in between is read again. */
  start() {
    this._listeners = new AbortController();
    const { signal } = this._listeners;
    addEventListener("online", () => this._stream.wake(), { signal });
    addEventListener("offline", () => this._changed(), { signal });
    document.addEventListener("visibilitychange", () => this._onVisibility(), { signal });
    this.reload();
    this._refreshApps();
    this._stream.start();
  }

  stop() {
    this._listeners?.abort();
    this._loading?.abort();
    this._refreshCounts.cancel();
    this._refreshShown.cancel();
    this._refreshApps.cancel();
    clearTimeout(this._hidden);
    clearTimeout(this._again);
    clearInterval(this._hiddenCounts);
    this._stream.stop();
  }

  show(view) {
    if (view === this.view || !VIEWS.includes(view)) return;
    this.view = view;
    this.marked = [];
    if (view !== "pending") this.filter = { ...this.filter, overdue: "" };
    this._forget();
  }

  /** Narrow the list: `q` is a text, `app_type` an app, `source` a sending system, `overdue` "true"; empty ones are none. */
  narrow(changes) {
    const filter = { ...this.filter, ...changes };
    if (Object.keys(filter).every((name) => filter[name] === this.filter[name])) return;
    this.filter = filter;
    this._forget();
  }

  get isNarrowed() {
    return Object.values(this.filter).some((wanted) => wanted !== "");
  }

  /** How many items of a view wait; without what was sent from it. */
  countOf(view) {
    const sent = view === "pending" ? [...this._sent].filter((key) => key.startsWith(`${view}\n`)).length : 0;
    return this.counts[view] - sent;
  }

  isSent(item) {
    return this._sent.has(keyOf(item));
  }

  setSent(items) {
    this._sent = new Set(items.map(keyOf).filter((key) => !this._left.has(key)));
    this._changed();
  }

  get isSearch() {
    return this.filter.q !== "";
  }

  /** All items that are shown anywhere. */
  get all() {
    return [...this.items, ...this.marked, ...this.elsewhere.flatMap(({ items }) => items)];
  }

  /** The items as they are shown: pinned ones first, hidden ones on request, and those that a search found elsewhere. */
  get groups() {
    const isHidden = ({ marks }) => marks?.hidden_until != null && Date.parse(marks.hidden_until) > Date.now();
    const marked = this.marked.filter((item) => this._matches(item));
    const hidden = marked.filter(isHidden);
    return {
      pinned: marked.filter((item) => item.marks.pinned && !isHidden(item)),
      items: this.items.filter((item) => !item.marks?.pinned && !isHidden(item)),
      hidden: this.showsHidden ? hidden : [],
      hiddenCount: hidden.length,
      elsewhere: this.elsewhere,
    };
  }

  showHidden(shows) {
    this.showsHidden = shows;
    this._changed();
  }

  /**
   * Mark items, not those of others: shown at once, and as they were if the service refuses. `changes`: `read`, `pinned`,
   * `hidden_until`.
   */
  async mark(items, changes) {
    items = items.filter((item) => !item.on_behalf_of);
    if (!this.hasMarks || items.length === 0) return;
    const { read, ...others } = changes;
    for (const item of items) this._setMarks(item, changes);
    this._changed();
    const given = items.map(({ view, instance_id, task_id, updated_at }) => {
      const seen = read === undefined ? {} : { read: read ? updated_at : null };
      return { view, instance_id, task_id, ...seen, ...others };
    });
    const parts = Array.from({ length: Math.ceil(given.length / MARKED) }, (_, index) => given.slice(index * MARKED, (index + 1) * MARKED));
    const marking = Promise.all(parts.map((items) => this._api.send("PUT", pathOf(this.person, "marks"), { items })));
    this._marking = Promise.allSettled([this._marking, marking]);
    try {
      await marking;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.dispatchEvent(new CustomEvent("unmarked"));
      this.reload();
    }
  }

  _setMarks(item, changes) {
    const key = keyOf(item);
    // It may have been marked since it was given to who marks it now.
    const known = this.all.find((other) => keyOf(other) === key) ?? item;
    const changed = { ...known, marks: { ...UNMARKED, ...known.marks, ...changes } };
    const put = (items) => items.map((other) => (keyOf(other) === key ? changed : other));
    this.items = put(this.items);
    this.elsewhere = this.elsewhere.map((found) => ({ ...found, items: put(found.items) }));
    if (item.view !== this.view) return;
    const isKept = changed.marks.pinned || changed.marks.hidden_until !== null;
    const rest = this.marked.filter((other) => keyOf(other) !== key);
    const kept = isKept ? [...rest, changed] : rest;
    this.marked = kept.toSorted((one, other) => Date.parse(other.created_at) - Date.parse(one.created_at));
  }

  _forget() {
    this.items = [];
    this.elsewhere = [];
    this.cursor = null;
    this.phase = "loading";
    this._changed();
    this.reload();
  }

  /** The first page and the counts, from the service. */
  async reload() {
    this._refreshCounts();
    await this._load(null);
    if (this._stream.state === "waiting" && this.phase === "ready") this._stream.wake();
  }

  /** The next page, when there is one. */
  async more() {
    if (this.cursor === null || this.loadingMore || this.phase !== "ready") return;
    await this._load(this.cursor);
  }

  async _load(cursor) {
    this._loading?.abort();
    clearTimeout(this._again);
    const loading = new AbortController();
    this._loading = loading;
    this._waiting = [];
    this.loadingMore = cursor !== null;
    if (this.phase === "failed") this.phase = "loading";
    this.problem = null;
    this._changed();
    try {
      const page = await this._page(cursor, loading.signal);
      if (loading.signal.aborted) return;
      // What is shown is newer: the stream has changed it.
      if (page.as_of !== undefined && this.items.length > 0) throw new Problem(0);
      this.asOf = page.as_of ?? null;
      const known = new Set(cursor === null ? [] : this.items.map(keyOf));
      const added = page.items.filter((item) => !known.has(keyOf(item)));
      this.items = cursor === null ? added : [...this.items, ...added];
      this.cursor = page.next_cursor;
      this.phase = "ready";
      for (const item of added) this._see(item);
      if (cursor === null) this._loadRest(loading.signal);
    } catch (error) {
      if (loading.signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      if (error.isFilling) await this._fill(error, loading.signal);
      else this._fail(error);
    } finally {
      if (this._loading === loading) {
        this._loading = null;
        this.loadingMore = false;
        // What the stream told meanwhile may be newer than the page.
        for (const notification of this._waiting.splice(0)) this._apply(notification);
        this._changed();
      }
    }
  }

  /** What is shown stays; only a list with nothing to show turns into the problem. */
  _fail(problem) {
    this.problem = problem;
    if (this.items.length === 0) this.phase = "failed";
  }

  async _fill({ retryAfterS }, signal) {
    const filled = await this._api.filled();
    if (signal.aborted) return;
    this.filled = filled;
    this.phase = "filling";
    this._again = setTimeout(() => this.reload(), (retryAfterS ?? 5) * 1000);
  }

  /** A page with something on it, or the last one: a search looks at so many lines at a time, and may find nothing there. */
  async _page(cursor, signal, { view = this.view, limit = PAGE } = {}) {
    const query = { view, limit, marks: this.hasMarks || null, ...this.filter };
    const load = (from) => this._afterMarks(() => this._api.get(pathOf(this.person, "tasks"), { ...query, cursor: from }, signal));
    let page = await load(cursor);
    while (page.items.length === 0 && page.next_cursor !== null && !signal?.aborted) page = await load(page.next_cursor);
    return page;
  }

  /** Read the other views once, for the service worker: so that all of them are there offline. */
  async loadOthers() {
    for (const view of VIEWS) if (view !== this.view && !this.isNarrowed) await quietly(this._page(null, undefined, { view }));
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
  async _loadRest(signal) {
    const elsewhere = this.isSearch ? this._searched.filter((view) => view !== this.view) : [];
    const requests = [
      this.hasMarks ? this._afterMarks(() => this._api.get(pathOf(this.person, "marked"), { view: this.view }, signal)) : { items: [] },
      ...elsewhere.map((view) => this._page(null, signal, { view, limit: ELSEWHERE })),
    ];
    const answers = await quietly(Promise.all(requests)).catch((error) => (signal?.aborted ? null : Promise.reject(error)));
    if (answers === null || signal?.aborted) return;
    const [found, ...others] = answers;
    this.marked = found.items;
    this.elsewhere = others.map(({ items, next_cursor: next }, index) => {
      return { view: elsewhere[index], items: items.slice(0, ELSEWHERE), more: next !== null || items.length > ELSEWHERE };
    });
    this._changed();
  }

  /** What the stream does not say: marks, which another browser may have changed, and whom requests wait for. */
  async _loadAdded() {
    const page = await quietly(this._page(null));
    if (page !== null) {
      const found = new Map(page.items.map((item) => [keyOf(item), item]));
      this.items = this.items.map((item) => {
        const { marks = item.marks, waits_for = item.waits_for } = found.get(keyOf(item)) ?? {};
        return { ...item, marks, waits_for };
      });
      this._changed();
    }
    if (this._loading === null) this._loadRest();
  }

  async _loadCounts() {
    this.counts = (await quietly(this._api.get(pathOf(this.person, "counts")))) ?? this.counts;
    this._changed();
  }

  /** Also those of lines that are not shown yet. Where it fails, they are missing until the next unknown app. */
  async _loadApps() {
    const found = await quietly(this._api.get(pathOf(this.person, "apps")));
    for (const { app_type: app, process_name: name, source } of found?.items ?? []) this.apps.know(app, name, source);
    this._changed();
  }

  _onState(state, problem) {
    this.live = state;
    if (problem !== null) this._fail(problem);
    this._changed();
  }

  _onOpen(resumed) {
    // Resumed: what was missed comes as events. Else it may have happened between the page and the stream.
    if (resumed && this.phase === "ready") this._refreshCounts();
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
    this._refreshCounts();
    this._countOut(notification);
    this.dispatchEvent(new CustomEvent("instance", { detail: { instanceId: notification.instance_id } }));
    if (notification.view === "pending" && notification.change === "ADDED") {
      this.dispatchEvent(new CustomEvent("task", { detail: { item: itemOf(notification) } }));
    }
    if (notification.view !== this.view) return;
    if (OWN_VIEWS.has(this.view)) this._refreshShown();
    const rest = this.marked.filter((item) => keyOf(item) !== keyOf(notification));
    const known = this.marked.find((item) => !rest.includes(item));
    if (known) this.marked = notification.change === "REMOVED" ? rest : this.marked.with(this.marked.indexOf(known), changedBy(notification, known));
    if (this._loading === null) this._apply(notification);
    else this._waiting.push(notification);
  }

  /** What was sent has left: it is in neither number any more. */
  _countOut(notification) {
    const key = keyOf(notification);
    if (notification.change !== "REMOVED") this._left.delete(key);
    else if (this._sent.delete(key)) {
      this._left.add(key);
      this.counts = { ...this.counts, [notification.view]: this.counts[notification.view] - 1 };
    }
  }

  /** What a notification makes of the items that are shown: it takes one away, changes it, moves it, or adds it. */
  _apply(notification) {
    const key = keyOf(notification);
    const known = this.items.find((item) => keyOf(item) === key);
    const rest = this.items.filter((item) => item !== known);
    const item = changedBy(notification, known);
    const at = known?.created_at === item.created_at ? this.items.indexOf(known) : this._placeOf(item, rest);
    // An update of an older version is no news of when it entered.
    const isUnsure = !known && this.cursor !== null && notification.entered_at == null && notification.change === "UPDATED";
    const isShown = notification.change !== "REMOVED" && at !== null && !isUnsure && this._matches(item);
    this.items = isShown ? rest.toSpliced(at, 0, item) : rest;
    // A page may have it already: it is new all the same.
    if (isShown && (!known || notification.change === "ADDED")) {
      this._see(item);
      this.dispatchEvent(new CustomEvent("arrived", { detail: { item } }));
    }
    this._changed();
  }

  /** Where an item stands by its time. Null where it is older than all of these, and there is more: it comes with its page. */
  _placeOf({ created_at: entered }, items) {
    const found = items.findIndex((other) => Date.parse(other.created_at) <= Date.parse(entered));
    if (found >= 0) return found;
    return this.cursor === null ? items.length : null;
  }

  _matches(item) {
    if (this.filter.app_type !== "" && item.app_type !== this.filter.app_type) return false;
    if (this.filter.source !== "" && item.source !== this.filter.source) return false;
    if (this.filter.overdue !== "" && !(Date.parse(item.due_at) <= Date.now())) return false;
    const sought = this.filter.q.trim().toLowerCase();
    if (sought === "") return true;
    return [item.title, item.process_name, item.originator?.name].some((text) => text?.toLowerCase().includes(sought));
  }

  _see({ app_type: app, process_name: name, source }) {
    if (!this.apps.has(app) && !name) this._refreshApps();
    this.apps.know(app, name, source);
  }

  _onVisibility() {
    clearTimeout(this._hidden);
    clearInterval(this._hiddenCounts);
    if (document.visibilityState === "visible") {
      this._stream.start();
      this._stream.wake();
      if (this.hasMarks && this.phase === "ready") this._loadAdded();
      return;
    }
    this._hidden = setTimeout(() => {
      if (this.staysLive) return;
      this._stream.stop();
      this._hiddenCounts = setInterval(() => this._loadCounts(), HIDDEN_COUNTS_MS);
    }, HIDDEN_MS);
  }

  _changed() {
    this.dispatchEvent(new CustomEvent("change"));
  }
}

function itemOf({ instance_id, task_id, view, title, url, app_type, source, originator, status, process_name, step_name, outcome, result, finished_at, due_at }) {
  const about = { title, url: webAddress(url), app_type, source, originator, process_name, step_name };
  return { instance_id, task_id, view, ...about, status, outcome, result, finished_at, due_at };
}

/** Notifications of older versions do not say when a line entered: then it did when it was first heard of. */
function timesOf({ entered_at: entered, updated_at: updated, occurred_at: occurred }, known) {
  return { created_at: entered ?? known?.created_at ?? occurred, updated_at: updated ?? occurred };
}

/** What an item has become; one that has changed is unread. */
function changedBy(notification, known) {
  const changed = { ...known, ...withoutGaps(itemOf(notification)), ...timesOf(notification, known) };
  const isRead = known?.marks?.read && changed.updated_at === known.updated_at;
  return known?.marks ? { ...changed, marks: { ...known.marks, read: isRead } } : changed;
}

/** A notification does not take away what an item had. */
function withoutGaps(item) {
  return Object.fromEntries(Object.entries(item).filter(([name, value]) => value != null || name === "task_id"));
}
