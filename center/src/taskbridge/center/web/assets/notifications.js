// New pending tasks as notifications of the browser, while a tab is open and nobody looks at it.

import { debounced } from "./dom.js";
import { notifies, setNotifies } from "./preferences.js";

const TOGETHER_MS = 400;
/** More at once are one notification. */
const MOST = 3;

// Shown by the service worker: phones show no others.
const isOffered = "Notification" in globalThis && "serviceWorker" in navigator;

const areOn = () => isOffered && notifies() && Notification.permission === "granted";

/** Shows what arrives, where that is on. Returns an item of a menu that turns it on and off; none where the browser has no notifications. */
export function notifyOfTasks(inbox, words) {
  const arrived = [];
  const soon = debounced(() => show(arrived.splice(0), words), TOGETHER_MS);
  inbox.staysLive = areOn();
  inbox.addEventListener("task", ({ detail }) => {
    // The page itself shows and says what arrives while somebody looks at it.
    if (!areOn() || (document.visibilityState === "visible" && document.hasFocus())) return;
    arrived.push(detail.item);
    soon();
  });
  const toggle = async () => {
    setNotifies(!areOn() && (await Notification.requestPermission()) === "granted");
    inbox.staysLive = areOn();
  };
  const { on, off, blocked } = words.notifications;
  const isBlocked = () => Notification.permission === "denied";
  return isOffered ? [{ text: () => (isBlocked() ? blocked : areOn() ? off : on), disabled: isBlocked, act: toggle }] : [];
}

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
