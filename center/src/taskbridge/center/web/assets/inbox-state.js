// What a person's task center shows, as one value that never changes, and what each event makes of it.

import { webAddress } from "./dom.js";

export const VIEWS = ["pending", "handled", "created", "copied"];
/** Of what the person did: it is no news. */
export const OWN_VIEWS = new Set(["handled", "created"]);
const UNMARKED = { read: false, pinned: false, hidden_until: null };

export const INITIAL = {
  view: "pending",
  filter: { app_type: "", source: "", q: "", overdue: "" },
  /** The view as far as it is loaded, and where it goes on. */
  items: [],
  cursor: null,
  /** The pinned and hidden ones of the view, wherever they are in it. */
  marked: [],
  showsHidden: false,
  /** What a search found in other views: `{view, items, more}`. */
  elsewhere: [],
  counts: {},
  /** "loading": nothing to show yet; "ready"; "filling": the service is `filled` to this share; "failed": see `problem`. */
  phase: "loading",
  filled: null,
  problem: null,
  loadingMore: false,
  /** Notifications since a page is being loaded, which they may be newer than; null while none is. */
  waiting: null,
  /** Of a list from the last time that the service was reached, when that was; else null. */
  asOf: null,
  live: "connecting",
  /** Keys of items that the person acted on, until that is confirmed: they wait for nobody here. */
  sent: new Set(),
  /** Keys of those that left the list since: what is asked about them may be answered late. */
  left: new Set(),
  /** Keys of those that were removed since the list or the marked ones were read: a late answer may still have them. */
  removed: new Set(),
  /** Items that the last event added to the view. */
  arrived: [],
};

/** What is different after an event of this type. */
const EVENTS = {
  /** Of another view, or of other items of it. Only pending tasks may be overdue. */
  chosen(state, { view = state.view, ...changes }) {
    const filter = { ...state.filter, ...changes, ...(view === "pending" ? {} : { overdue: "" }) };
    const marked = view === state.view ? state.marked : [];
    return { view, filter, marked, items: [], elsewhere: [], cursor: null, phase: "loading", waiting: null };
  },
  toggled: (_, { showsHidden }) => ({ showsHidden }),
  requested(state, { isMore }) {
    const phase = state.phase === "failed" ? "loading" : state.phase;
    // What waited for a page that is not awaited any more is older than this one.
    const removed = isMore ? state.removed : new Set();
    return { ...caughtUp(state), phase, problem: null, loadingMore: isMore, waiting: [], removed };
  },
  loaded(state, { page, isMore }) {
    const before = isMore ? state.items : [];
    const known = new Set(before.map(keyOf));
    const items = [...before, ...page.items.filter((item) => !known.has(keyOf(item)))];
    return caughtUp({ ...state, items, cursor: page.next_cursor, asOf: page.as_of ?? null, phase: "ready" });
  },
  failed(state, { problem }) {
    const changes = problem.isFilling ? { phase: "filling", filled: problem.filled } : failure(state, problem);
    return caughtUp({ ...state, ...changes });
  },
  found({ removed }, { marked, elsewhere }) {
    return { marked: marked.filter((item) => !removed.has(keyOf(item))), elsewhere, removed: new Set() };
  },
  /** What notifications do not say: marks, which another browser may have changed, and whom requests wait for. */
  refreshed(state, { page }) {
    const found = new Map(page.items.map((item) => [keyOf(item), item]));
    const items = state.items.map((item) => {
      const { marks = item.marks, waits_for = item.waits_for } = found.get(keyOf(item)) ?? {};
      return { ...item, marks, waits_for };
    });
    return { items };
  },
  counted: (_, { counts }) => ({ counts }),
  connected: (state, { live, problem }) => ({ live, ...(problem === null ? {} : failure(state, problem)) }),
  /** All that the person acted on. */
  sent: ({ left }, { items }) => ({ sent: new Set(items.map(keyOf)).difference(left) }),
  marked: (state, { items, changes }) => items.reduce((before, item) => withMarks(before, item, changes), state),
  notified(state, { notification }) {
    const key = new Set([keyOf(notification)]);
    const removed = notification.change === "REMOVED" ? state.removed.union(key) : state.removed.difference(key);
    const counted = { ...state, removed, ...countedOut(state, notification, key) };
    return state.waiting === null ? updated(counted, notification) : { ...counted, waiting: [...state.waiting, notification] };
  },
};

/** The state after an event. */
export function reduce(before, { type, ...event }) {
  const state = { ...before, arrived: [] };
  return { ...state, ...EVENTS[type](state, event) };
}

export const keyOf = (item) => `${item.view}\n${item.instance_id}\n${item.task_id ?? ""}`;

export const isNarrowed = ({ filter }) => Object.values(filter).some((wanted) => wanted !== "");

/** How many items of a view wait; without what was sent from it. */
export function countOf({ counts, sent }, view) {
  return counts[view] - (view === "pending" ? [...sent].filter((key) => key.startsWith(`${view}\n`)).length : 0);
}

/** All items that are shown anywhere. */
export const allOf = ({ items, marked, elsewhere }) => [...items, ...marked, ...elsewhere.flatMap((found) => found.items)];

/** The items as they are shown: pinned ones first, hidden ones on request, and those that a search found elsewhere. */
export function groupsOf({ filter, items, marked, showsHidden, elsewhere }) {
  const isHidden = ({ marks }) => marks?.hidden_until != null && Date.parse(marks.hidden_until) > Date.now();
  const shown = marked.filter((item) => matches(filter, item));
  const hidden = shown.filter(isHidden);
  return {
    pinned: shown.filter((item) => item.marks.pinned && !isHidden(item)),
    items: items.filter((item) => !item.marks?.pinned && !isHidden(item)),
    hidden: showsHidden ? hidden : [],
    hiddenCount: hidden.length,
    elsewhere,
  };
}

/** What is shown stays; only a list with nothing to show turns into the problem. */
const failure = ({ items, phase }, problem) => ({ problem, phase: items.length === 0 ? "failed" : phase });

/** With what was notified while a page was loading. */
function caughtUp({ waiting, ...state }) {
  return (waiting ?? []).reduce(updated, { ...state, waiting: null, loadingMore: false });
}

/** What was sent has left: it is in neither number any more. */
function countedOut({ sent, left, counts }, { change, view }, key) {
  if (change !== "REMOVED") return { left: left.difference(key) };
  if (sent.isDisjointFrom(key)) return {};
  return { sent: sent.difference(key), left: left.union(key), counts: { ...counts, [view]: counts[view] - 1 } };
}

/** What a notification makes of the items that are shown: it takes one away, changes it, moves it, or adds it. */
function updated(state, notification) {
  if (notification.view !== state.view) return state;
  const isRemoved = notification.change === "REMOVED";
  const isIt = (item) => keyOf(item) === keyOf(notification);
  const marked = state.marked.filter((item) => !isRemoved || !isIt(item)).map((item) => (isIt(item) ? changedBy(notification, item) : item));
  const known = state.items.find(isIt);
  const rest = state.items.filter((item) => item !== known);
  const item = changedBy(notification, known);
  const at = known?.created_at === item.created_at ? state.items.indexOf(known) : placeOf(item, rest, state.cursor);
  // An update of an older version is no news of when it entered.
  const isUnsure = !known && state.cursor !== null && notification.entered_at == null && notification.change === "UPDATED";
  if (isRemoved || isUnsure || at === null || !matches(state.filter, item)) return { ...state, marked, items: rest };
  // A page may have it already: it is new all the same.
  const isNew = !known || notification.change === "ADDED";
  return { ...state, marked, items: rest.toSpliced(at, 0, item), arrived: isNew ? [...state.arrived, item] : state.arrived };
}

/** Where an item stands by its time. Null where it is older than all of these, and there is more: it comes with its page. */
function placeOf({ created_at: entered }, items, cursor) {
  const found = items.findIndex((other) => Date.parse(other.created_at) <= Date.parse(entered));
  if (found >= 0) return found;
  return cursor === null ? items.length : null;
}

function matches(filter, { app_type: app, source, due_at: due, title, process_name: process, originator }) {
  if (filter.app_type !== "" && app !== filter.app_type) return false;
  if (filter.source !== "" && source !== filter.source) return false;
  if (filter.overdue !== "" && !(Date.parse(due) <= Date.now())) return false;
  const sought = filter.q.trim().toLowerCase();
  return sought === "" || [title, process, originator?.name].some((text) => text?.toLowerCase().includes(sought));
}

function withMarks(state, item, changes) {
  const isIt = (other) => keyOf(other) === keyOf(item);
  // It may have been marked since it was given to who marks it now.
  const known = allOf(state).find(isIt) ?? item;
  const changed = { ...known, marks: { ...UNMARKED, ...known.marks, ...changes } };
  const put = (items) => items.map((other) => (isIt(other) ? changed : other));
  const elsewhere = state.elsewhere.map((found) => ({ ...found, items: put(found.items) }));
  const marked = state.marked.filter((other) => !isIt(other));
  if (item.view === state.view && (changed.marks.pinned || changed.marks.hidden_until !== null)) marked.push(changed);
  marked.sort((one, other) => Date.parse(other.created_at) - Date.parse(one.created_at));
  return { ...state, items: put(state.items), elsewhere, marked };
}

/** The item of a notification. */
export function itemOf({ instance_id, task_id, view, title, url, app_type, source, originator, status, process_name, step_name, outcome, result, finished_at, due_at }) {
  const about = { title, url: webAddress(url), app_type, source, originator, process_name, step_name };
  return { instance_id, task_id, view, ...about, status, outcome, result, finished_at, due_at };
}

/** What an item has become; one that has changed is unread. A notification does not take away what an item had. */
function changedBy(notification, known) {
  const news = Object.fromEntries(Object.entries(itemOf(notification)).filter(([name, value]) => value != null || name === "task_id"));
  const { entered_at: entered, updated_at: updated, occurred_at: occurred } = notification;
  // Notifications of older versions do not say when a line entered: then it did when it was first heard of.
  const changed = { ...known, ...news, created_at: entered ?? known?.created_at ?? occurred, updated_at: updated ?? occurred };
  const isRead = known?.marks?.read && changed.updated_at === known.updated_at;
  return known?.marks ? { ...changed, marks: { ...known.marks, read: isRead } } : changed;
}
