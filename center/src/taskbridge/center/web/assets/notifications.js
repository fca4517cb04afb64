// New pending tasks as notifications of the browser: while a tab is open and nobody looks at it, or by push messages,
// where the organisation has them, which come without an open page too.

import { outcome, quietly } from "./api.js";
import { debounced } from "./dom.js";
import { notifies, setNotifies } from "./preferences.js";

const TOGETHER_MS = 400;
/** More at once are one notification. */
const MOST = 3;

// Shown by the service worker: phones show no others.
const isOffered = "Notification" in globalThis && "serviceWorker" in navigator;

const areOn = () => isOffered && notifies() && Notification.permission === "granted";

/** Whether the service sends push messages to this browser: then the page shows nothing itself. */
let pushes = false;

/** Shows what arrives, where that is on. `api` is of a person with a session, or null. Returns an item of a menu that turns it on and off; none where the browser has no notifications. */
export function notifyOfTasks(inbox, words, api) {
  const arrived = [];
  const soon = debounced(() => show(arrived.splice(0), words), TOGETHER_MS);
  inbox.staysLive = areOn();
  // Also for a new session, and with a new key of the organisation.
  if (api !== null && areOn()) quietly(subscribe(api)).catch(() => {});
  inbox.addEventListener("task", ({ detail }) => {
    // The page itself shows and says what arrives while somebody looks at it.
    if (!areOn() || pushes || (document.visibilityState === "visible" && document.hasFocus())) return;
    arrived.push(detail.item);
    soon();
  });
  const toggle = async () => {
    setNotifies(!areOn() && (await Notification.requestPermission()) === "granted");
    inbox.staysLive = areOn();
    if (api === null) return null;
    try {
      const [, problem] = await outcome(areOn() ? subscribe(api) : unsubscribe(api));
      return problem === null ? null : words.notifications.onlyOpen;
    } catch {
      return words.notifications.onlyOpen; // the browser has no push service
    }
  };
  const { on, off, blocked } = words.notifications;
  const isBlocked = () => Notification.permission === "denied";
  return isOffered ? [{ text: () => (isBlocked() ? blocked : areOn() ? off : on), disabled: isBlocked, act: toggle }] : [];
}

async function subscribe(api) {
  const { key } = await api.get("/v1/me/push");
  if (key === null) return;
  const { pushManager } = await navigator.serviceWorker.ready;
  const options = { userVisibleOnly: true, applicationServerKey: bytesOf(key) };
  // One of another key is refused.
  const found = await pushManager.subscribe(options).catch(async () => {
    await (await pushManager.getSubscription())?.unsubscribe();
    return pushManager.subscribe(options);
  });
  const { endpoint, keys } = found.toJSON();
  await api.send("PUT", "/v1/me/push", { endpoint, p256dh: keys.p256dh, auth: keys.auth });
  pushes = true;
}

async function unsubscribe(api) {
  pushes = false;
  await (await (await navigator.serviceWorker.ready).pushManager.getSubscription())?.unsubscribe();
  await api.send("DELETE", "/v1/me/push");
}

const bytesOf = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (character) => character.charCodeAt(0));

async function show(items, words) {
  const worker = await navigator.serviceWorker.ready;
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
