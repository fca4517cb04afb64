// The page as an app: what its service worker needs of it.

const WORKER = "/service-worker.js";

/** Delete what the worker has stored for a person: a page that was loaded past it signs out past it, too. */
export async function forgetLists() {
  await globalThis.caches?.delete("taskbridge-lists");
}

/** The one address that the policy lets become a script: see routes.py. */
function trusted() {
  if (!globalThis.trustedTypes) return WORKER;
  return trustedTypes.createPolicy("service-worker", { createScriptURL: () => WORKER }).createScriptURL(WORKER);
}

/**
 * `open` takes the place in the page that a notification leads to; `started` is called once the worker answers for the
 * page, which has loaded without it before.
 */
export async function startWorker({ open, started }) {
  if (!("serviceWorker" in navigator)) return;
  navigator.serviceWorker.addEventListener("controllerchange", started);
  navigator.serviceWorker.addEventListener("message", ({ data }) => open(data.hash));
  try {
    await navigator.serviceWorker.register(trusted());
  } catch {
    // A private window, or no https: the page needs the network then.
  }
}
