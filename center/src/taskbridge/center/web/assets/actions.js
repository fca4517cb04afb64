// What a person may decide here, what they decided, and what became of it.

import { Problem } from "./api.js";
import { debounced } from "./dom.js";

const UNDER_WAY = new Set(["REQUESTED", "SENDING", "ACCEPTED", "UNCLEAR"]);
const LOOK_AGAIN_MS = 1500;
const SOON_MS = 150;

/** Emits "change" when something else is to be shown. */
export class Actions extends EventTarget {
  constructor(api, inbox) {
    super();
    this._api = api;
    this._inbox = inbox;
    this._possible = [];
    this._latest = new Map();
    this._soon = debounced(() => this.load(), SOON_MS);
    // A callback came: an action may have ended.
    inbox.addEventListener("instance", () => this._isWaiting && this._soon());
    // Not before: while the lists are filled there is nothing to decide.
    inbox.addEventListener("change", () => inbox.phase === "ready" && !this._asked && this.load());
  }

  /** Failing is no harm: nothing can be decided until the next time. */
  async load() {
    this._asked = true;
    try {
      this._know(await this._api.actions(this._inbox.person));
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
    }
  }

  /** What may be done with an item: names of actions. */
  possible({ source, app_type: app, view, status, task_id: task }) {
    const found = this._possible.find((each) => each.source === source && (each.app_type ?? app) === app);
    // DingTalk knows tasks by numbers.
    const named = source !== "yida" || view === "created" || /^\d+$/.test(task ?? "");
    const wanted = view === "pending" ? ["agree", "refuse", "return", "hand_over"] : view === "created" && status === "PENDING" ? ["withdraw"] : [];
    return named ? wanted.filter((action) => found?.actions.includes(action)) : [];
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

  /** Rejects with a Problem where the service did not record it. */
  async act(action, items, { remark = "", recipient = null } = {}) {
    const named = items.map(({ instance_id, task_id, on_behalf_of: of }) => ({ instance_id, task_id, user_id: of?.user_id ?? null }));
    this._know(await this._api.act(this._inbox.person, { action, items: named, remark, recipient_id: recipient }));
  }

  get _isWaiting() {
    return [...this._latest.values()].some(({ status }) => UNDER_WAY.has(status));
  }

  _know({ possible, items }) {
    this._possible = possible;
    // The latest comes first.
    for (const item of items.toReversed()) this._latest.set(taskKey(item, item.user_id), item);
    clearTimeout(this._again);
    if (this._isWaiting) this._again = setTimeout(() => this.load(), LOOK_AGAIN_MS);
    this.dispatchEvent(new CustomEvent("change"));
  }
}

/** Of a task, whose it is included: one that others delegated may be the reader's own too. */
export const taskKey = ({ instance_id: instance, task_id: task, on_behalf_of: of }, user = of?.user_id) => `${user}\n${instance}\n${task ?? ""}`;
