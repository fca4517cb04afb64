// What a person may decide here, what they decided, and what became of it.

import { pathOf, quietly } from "./api.js";
import { debounced } from "./dom.js";
import { UNDER_WAY, hasEnded } from "./states.js";

const OF_TASKS = ["agree", "refuse", "return", "hand_over"];
const NOT_CARRIED_OUT = new Set(["REFUSED", "FAILED", "OVERTAKEN"]);
const LOOK_AGAIN_MS = 1500;
const SOON_MS = 150;

/** Emits "change" when something else is to be shown. */
export class Actions extends EventTarget {
  constructor(api, inbox) {
    super();
    this._api = api;
    this._inbox = inbox;
    this._possible = [];
    /** Why nothing is possible at all, in the service's word. */
    this._reason = null;
    this._latest = new Map();
    this._soon = debounced(() => this.load(), SOON_MS);
    // A callback came: an action may have ended.
    inbox.addEventListener("instance", () => this._isWaiting && this._soon());
    // Not before: while the lists are filled there is nothing to decide.
    inbox.addEventListener("change", () => inbox.state.phase === "ready" && !this._asked && this.load());
  }

  /** Failing is no harm: nothing can be decided until the next time. */
  async load() {
    this._asked = true;
    const found = await quietly(this._api.get(pathOf(this.person, "actions")));
    if (found !== null) this._know(found);
  }

  /** What may be done with an item: names of actions. */
  possible(item) {
    return this._isNamed(item) && !hasEnded(item) ? wantedOf(item).filter((action) => this._of(item)?.actions.includes(action)) : [];
  }

  /** Why nothing may be done with an open item, in the service's word; null where something may be done, or is not known yet. */
  whyNot(item) {
    if (!this._isKnown || wantedOf(item).length === 0 || this.possible(item).length > 0) return null;
    if (hasEnded(item)) return "ended";
    return this._reason ?? (this._isNamed(item) ? "not-possible" : "not-numeric");
  }

  _of({ source, app_type: app }) {
    return this._possible.find((each) => each.source === source && (each.app_type ?? app) === app);
  }

  _isNamed(item) {
    return item.view !== "pending" || !this._of(item)?.numeric_task_ids || /^\d+$/.test(item.task_id ?? "");
  }

  get person() {
    return this._inbox.person;
  }

  get any() {
    return this._possible.length > 0;
  }

  /** The latest action on an item, or undefined. */
  of(item) {
    return this._latest.get(taskKey(item, item.on_behalf_of?.user_id ?? this.person.userId));
  }

  isUnderWay(item) {
    return UNDER_WAY.has(this.of(item)?.status);
  }

  isNotCarriedOut(item) {
    return NOT_CARRIED_OUT.has(this.of(item)?.status);
  }

  /** Rejects with a Problem where the service did not record it. `seen`: revision of the instance and digest of its form as they are shown, if they are. */
  async act(action, items, { remark = "", recipient = null, seen: { revision = null, form = "" } = {} } = {}) {
    const seen = { seen_revision: revision, seen_form: form };
    const named = items.map(({ instance_id, task_id, on_behalf_of: of }) => ({ instance_id, task_id, user_id: of?.user_id ?? null, ...seen }));
    this._know(await this._api.send("POST", pathOf(this.person, "actions"), { action, items: named, remark, recipient_id: recipient }));
  }

  get _isWaiting() {
    return [...this._latest.values()].some(({ status }) => UNDER_WAY.has(status));
  }

  _know({ possible, reason, items }) {
    this._possible = possible;
    this._reason = reason;
    this._isKnown = true;
    // The latest comes first.
    for (const item of items.toReversed()) this._latest.set(taskKey(item, item.user_id), item);
    const own = [...this._latest.values()].filter(({ status, user_id: user }) => UNDER_WAY.has(status) && user === this.person.userId);
    const sent = own.map(({ action, ...about }) => ({ ...about, view: action === "withdraw" ? "created" : "pending" }));
    this._inbox.put("sent", { items: sent });
    clearTimeout(this._again);
    if (this._isWaiting) this._again = setTimeout(() => this.load(), LOOK_AGAIN_MS);
    this.dispatchEvent(new CustomEvent("change"));
  }
}

/** The names of actions that items like this may have. */
const wantedOf = ({ view, status }) => (view === "pending" ? OF_TASKS : view === "created" && status === "PENDING" ? ["withdraw"] : []);

/** Of a task, whose it is included: one that others delegated may be the reader's own too. */
export const taskKey = ({ instance_id: instance, task_id: task, on_behalf_of: of }, user = of?.user_id) => `${user}\n${instance}\n${task ?? ""}`;
