// New pending tasks as notifications of the browser, while a tab is open and nobody looks at it.

import { debounced } from "./dom.js";
import { notifies, setNotifies } from "./preferences.js";

const TOGETHER_MS = 400;
/** More at once are one notification. */
const MOST = 3;

// Shown by the service worker: phones show no others.
const isOffered = "Notification" in globalThis && "serviceWorker" in navigator;

export class Notifications {
  constructor(inbox, words) {
    this._inbox = inbox;
    this._words = words;
    this._arrived = [];
    this._soon = debounced(() => this._show(this._arrived.splice(0)), TOGETHER_MS);
    inbox.staysLive = this._areOn;
    inbox.addEventListener("task", ({ detail }) => this._onTask(detail.item));
  }

  get _areOn() {
    return isOffered && notifies() && Notification.permission === "granted";
  }

  /** Turns them on and off: an item of a menu; none where the browser has no notifications. */
  get items() {
    if (!isOffered) return [];
    const { on, off, blocked } = this._words.notifications;
    const isBlocked = () => Notification.permission === "denied";
    return [{ text: () => (isBlocked() ? blocked : this._areOn ? off : on), disabled: isBlocked, act: () => this._toggle() }];
  }

  async _toggle() {
    setNotifies(!this._areOn && (await Notification.requestPermission()) === "granted");
    this._inbox.staysLive = this._areOn;
  }

  /** The page itself shows and says what arrives while somebody looks at it. */
  _onTask(item) {
    if (!this._areOn || (document.visibilityState === "visible" && document.hasFocus())) return;
    this._arrived.push(item);
    this._soon();
  }

  async _show(items) {
    const worker = await navigator.serviceWorker.ready;
    const words = this._words;
    if (items.length > MOST) {
      worker.showNotification(words.arrivedMany(items.length), { tag: "pending", data: { hash: "#pending" } });
      return;
    }
    for (const { instance_id: id, task_id: task, title, originator, process_name: process } of items) {
      const body = [originator?.name, process].filter(Boolean).join(" · ");
      // Several tabs show the same one: the tag makes it one.
      worker.showNotification(title || words.untitled, { body, tag: `${id} ${task}`, lang: words.tag, data: { hash: `#pending/${encodeURIComponent(id)}` } });
    }
  }
}
