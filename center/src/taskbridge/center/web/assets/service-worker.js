// Answers the page while the service cannot be reached: with the page's own files, and with the last lists of the
// person who is signed in, for a day's work. Those of another person, or of nobody, are never stored.

const FILES = "taskbridge-files";
const LISTS = "taskbridge-lists";
const ME = "/v1/me";
/** When the service gave an answer: only those that are stored have it. */
const AS_OF = "taskbridge-as-of";
const LONGEST_MS = 12 * 3600 * 1000;
const NARROWED = ["cursor", "q", "app_type", "source"];
/** A proxy's words for "it cannot be reached". */
const AWAY = new Set([502, 504]);
let storing = Promise.resolve();
/** Counts who came and went: what was asked for one person is not stored for the next. */
let person = 0;

addEventListener("install", (event) => event.waitUntil(storePage().then(() => skipWaiting())));
addEventListener("activate", (event) => event.waitUntil(clients.claim()));
addEventListener("push", (event) => event.waitUntil(pushed(event.data)));
addEventListener("notificationclick", (event) => event.waitUntil(open(event.notification)));
addEventListener("fetch", (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  if (origin !== location.origin) return;
  // Somebody signs in, perhaps another person: nothing is known until the service says who it is.
  if (request.mode === "navigate" && pathname === "/sign-in") event.waitUntil(forget());
  else if (request.mode === "navigate" && pathname === "/") event.respondWith(page(event));
  else if (pathname.startsWith("/assets/")) event.respondWith(file(request));
  else if (pathname === "/sign-out") event.respondWith(signOut(request));
  else if (pathname === ME || /^\/v1\/corps\/.*\/(tasks|counts|apps|marked)$/.test(pathname)) {
    if (request.method === "GET") event.respondWith(list(event));
  }
});

async function storePage() {
  const response = await fetch("/", { cache: "no-cache" });
  const files = [...(await response.clone().text()).matchAll(/"(\/assets\/[^"]+)"/g)].map(([, path]) => path);
  // Of a proxy, perhaps, which wants somebody to sign in.
  if (!response.ok || files.length === 0) return;
  const cache = await caches.open(FILES);
  const stored = (await cache.keys()).map(({ url }) => new URL(url).pathname);
  await cache.addAll(files.filter((path) => !stored.includes(path)));
  await cache.put("/", response);
  // Of another version of the page.
  for (const path of stored) if (path !== "/" && !files.includes(path)) await cache.delete(path);
}

async function page(event) {
  const response = await fetch(event.request).catch(() => null);
  if (response === null || AWAY.has(response.status)) return (await caches.match("/", { cacheName: FILES, ignoreVary: true })) ?? response ?? Response.error();
  // A proxy wants somebody to sign in.
  if (response.type === "opaqueredirect") await forget();
  if (response.ok) event.waitUntil(storePage().catch(() => {}));
  return response;
}

/** Their paths have their version. */
async function file(request) {
  return (await caches.match(request, { cacheName: FILES, ignoreVary: true })) ?? fetch(request);
}

function forget() {
  person += 1;
  return caches.delete(LISTS);
}

async function signOut(request) {
  await forget();
  const response = await fetch(request);
  // What was under way meanwhile.
  await forget();
  return response;
}

async function list(event) {
  const { request } = event;
  const asked = person;
  // A proxy that wants somebody to sign in redirects: that is no failure of the network.
  const response = await fetch(new Request(request, { redirect: "manual" })).catch(() => null);
  if (response === null || AWAY.has(response.status)) return (await lastAnswer(request)) ?? response ?? Response.error();
  if (response.type === "opaqueredirect") {
    await forget();
    return Response.error();
  }
  const copy = response.clone();
  // One after the other: of two answers that say who it is, the second one must know the first.
  storing = storing.then(() => store(new URL(request.url), copy, asked)).catch(() => {});
  event.waitUntil(storing);
  return response;
}

async function lastAnswer(request) {
  const found = await caches.match(request, { cacheName: LISTS, ignoreVary: true });
  if (found === undefined || Date.now() - Date.parse(found.headers.get(AS_OF)) < LONGEST_MS) return found;
  await caches.delete(LISTS);
  return undefined;
}

async function store(url, response, asked) {
  if (response.status === 401) await forget();
  if (!response.ok) return;
  if (url.pathname === ME) await forgetOthers(await response.clone().json());
  // One handle: after a sign-out in between, it leads to nothing any more.
  const cache = await caches.open(LISTS);
  if (asked !== person) return;
  if (url.pathname === ME ? !isPerson(await response.clone().json()) : !(await isOwn(cache, url))) return;
  const headers = { "content-type": "application/json", [AS_OF]: new Date().toISOString() };
  await cache.put(url.href, new Response(await response.blob(), { headers }));
}

const isPerson = ({ mode }) => mode === "sso";

const listsOf = ({ corp_id: corpId, user_id: userId }) => `/v1/corps/${encodeURIComponent(corpId)}/users/${encodeURIComponent(userId)}/`;

async function forgetOthers(me) {
  const known = await (await caches.open(LISTS)).match(ME);
  if (known === undefined || !isPerson(me) || listsOf(await known.json()) !== listsOf(me)) await caches.delete(LISTS);
}

async function isOwn(cache, url) {
  const known = await cache.match(ME);
  return known !== undefined && url.pathname.startsWith(listsOf(await known.json())) && !NARROWED.some((name) => url.searchParams.has(name));
}

/** What the service says while no page is open. A browser wants something to be shown for each message. */
function pushed(data) {
  let content = {};
  try {
    content = data.json();
  } catch {
    // Of a newer service.
  }
  const { title = "任务中心 · Task center", body = "", tag = "pending", hash = "#pending" } = content;
  return registration.showNotification(title, { body, tag, data: { hash } });
}

/** The task of a notification, in a tab that is open, or in a new one. */
async function open(notification) {
  notification.close();
  const [tab] = (await clients.matchAll({ type: "window" })).filter(({ url }) => new URL(url).pathname === "/");
  if (tab === undefined) {
    await clients.openWindow(`/${notification.data.hash}`);
    return;
  }
  tab.postMessage(notification.data);
  await tab.focus();
}
