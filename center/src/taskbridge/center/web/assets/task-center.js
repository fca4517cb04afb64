// The task-center page: list on one side, details on the other, both of one inbox.

import { approvalPage, taskList } from "./task-list.js";
import { Actions } from "./actions.js";
import { severalDialog } from "./deciding.js";
import { Delegated, delegationDialog } from "./delegating.js";
import { detailPane } from "./detail.js";
import { button, closing, dialog, element, icon, ownLink, replace } from "./dom.js";
import { VIEWS, allOf, countOf } from "./inbox-state.js";
import { Inbox } from "./inbox.js";
import { listMenu } from "./list-menu.js";
import { CHANGES } from "./mark-tools.js";
import { notifyOfTasks } from "./notifications.js";
import { startWorker } from "./offline.js";
import { decoded, liveSign, pageHead } from "./page-head.js";
import { nameOf } from "./people-picker.js";
import { accountMenu, leavePerson } from "./account.js";
import { forgetToken, pageApi, signIn } from "./sign-in.js";
import { chosenWords } from "./words.js";

const DETAIL_AFTER_MS = 120;
const KEY_NAMES = ["J ↓", "K ↑", "Enter", "O", "A", "B", "1 – 4", "/", "R", "U", "P", "H", "M", "Esc", "?"];
const WIDE = matchMedia("(min-width: 60rem)");

const root = document.querySelector("#page");
const asked = new URLSearchParams(location.search);
const api = pageApi();
const given = { corpId: asked.get("corp_id"), userId: asked.get("user_id"), choose: asked.has("choose") };
const { me, corpId, userId } = await signIn(api, root, chosenWords(), given);
const words = chosenWords();
const person = { corpId, userId };
const isOwn = me.corp_id === corpId && me.user_id === userId;

// An operator sees somebody else's lists, and not what that person marked.
const inbox = new Inbox(api, person, { view: readAddress().view ?? VIEWS[0], filter: history.state, marks: isOwn || me.mode !== "sso" });
history.replaceState(null, "");
const actions = new Actions(api, inbox);
const delegated = new Delegated(api, actions);

const delegations = delegationDialog(api, person, words, () => inbox.apps.labels(words));
const menu = listMenu(api, inbox, words, {
  settings: [
    ...notifyOfTasks(inbox, words, me.session && isOwn ? api : null),
    { text: () => (actions.any ? words.delegating.title : null), act: () => void delegations.open() },
  ],
  say: (text) => list.say(text),
});
const several = deciding(words.acting.several, () => (inbox.state.view === "pending" ? inbox.state.items : []));
const fromOthers = deciding(words.delegating.received, () => delegated.items);
const list = taskList(inbox, words, {
  tools: [...menu.parts, fromOthers.opener, several.opener],
  onCursor,
  onChoose: choose,
  onView: (view) => goTo(view, null),
});
const detail = detailPane(api, inbox, words, { close, actions, opensFiles: me.mode !== "token" });
const live = liveSign(words.live);
const account = accountMenu(api, me, words, { isOwn });
const help = keysDialog();
const main = element("main", { class: "center" }, list.root, detail.root);
let chip = who(isOwn ? me.user_name : null);
const head = pageHead(words, {
  title: words.product,
  other: [isOwn && me.start_forms ? ownLink("/start", words.start.title) : null, me.operator ? ownLink("/ops", words.ops.title) : null],
  own: [live.root, chip, account, button("?", () => help.showModal(), { class: "tool", "aria-label": words.help, title: words.help })],
  typed: () => inbox.state.filter,
});
replace(
  root,
  button(words.skip, () => list.focus(), { class: "primary-button skip" }),
  head,
  main,
  ...[help, several.root, fromOthers.root, delegations.root],
);

/** The row that an address named, once it was found. */
let seenRow;
let following;
const KEYS = keys();
inbox.addEventListener("change", onChange);
for (const each of [actions, delegated]) each.addEventListener("change", onActions);
addEventListener("hashchange", followAddress);
document.addEventListener("keydown", onKey);
inbox.start();
followAddress();
startWorker({ open: (hash) => void (location.hash = hash), started: loadAgain });
loadOthers();
if (!isOwn) learnName();

/** So that the service worker has it: whose lists they are, and then the lists. */
async function loadAgain() {
  await api.get("/v1/me").catch(() => {});
  await inbox.reload();
  loadOthers();
}

/** It stores the lists of people who sign in, and no others. */
function loadOthers() {
  if (isOwn && me.mode === "sso" && navigator.serviceWorker?.controller) inbox.loadOthers();
}

async function learnName() {
  const named = who(await nameOf(api, person));
  chip.replaceWith(named);
  chip = named;
}

/** Whose list it is: by name where that is known. */
function who(name) {
  const content = [icon("person"), element("bdi", { class: "cut" }, name ?? userId)];
  const kind = { class: "quiet-button who", title: userId };
  if (account !== null) return button(content, () => {}, { ...kind, popovertarget: account.id });
  if (me.mode === "sso") return element("span", kind, content[1]);
  const label = `${words.signIn.switch}: ${name ? `${name}, ${userId}` : userId}`;
  return button(content, switchPerson, { ...kind, title: label, "aria-label": label });
}

function switchPerson() {
  forgetToken();
  leavePerson("/");
}

/** A dialog in which several tasks are decided, and the button that opens it. */
function deciding(title, items) {
  const made = severalDialog(actions, words, { title, items, show: (item) => choose(item, true) });
  return { ...made, opener: button(title, made.open, { class: "quiet-button several-button", hidden: true }) };
}

function keysDialog() {
  const names = (index) => KEY_NAMES[index].split(" ").map((name) => element("kbd", {}, name));
  const known = words.keys.flatMap((meaning, index) => [element("dt", {}, names(index)), element("dd", {}, meaning)]);
  return dialog(words.help, { class: "small", closedby: "any" }, element("dl", {}, ...known), closing(words));
}

function onActions() {
  const count = delegated.items.length;
  fromOthers.opener.hidden = count === 0;
  fromOthers.opener.textContent = `${words.delegating.received} (${count})`;
  several.opener.hidden = !actions.any || inbox.state.view !== "pending";
  fromOthers.render();
  several.render();
}

function onChange() {
  const { state } = inbox;
  onActions();
  menu.update();
  live.show(state.live);
  const pending = countOf(state, "pending");
  document.title = `${pending > 0 ? `(${pending}) ` : ""}${words.views[state.view]} · ${words.product}`;
  awaitItem();
  if (state.live === "refused" && state.problem?.status === 401) {
    forgetToken();
    location.reload();
  }
}

/** A link named the instance only: its row, once loaded, becomes the current one. */
function awaitItem() {
  const id = detail.instanceId;
  if (id === null || list.current !== null || seenRow === id) return;
  const item = allOf(inbox.state).find((found) => found.instance_id === id);
  if (item === undefined) return;
  seenRow = id;
  list.mark(item);
  show(id, item);
}

function choose(item, byKeyboard) {
  clearTimeout(following);
  goTo(inbox.state.view, item.instance_id);
  show(item.instance_id, item);
  if (byKeyboard || !WIDE.matches) detail.focus();
}

function onCursor(item) {
  clearTimeout(following);
  if (!WIDE.matches) return;
  // Who holds the key down passes over rows that nobody needs to load.
  following = setTimeout(() => {
    goTo(inbox.state.view, item.instance_id, readAddress().instanceId === null ? "pushState" : "replaceState");
    show(item.instance_id, item);
  }, DETAIL_AFTER_MS);
}

/** Who sees an item has read it. */
function show(instanceId, item) {
  detail.show(instanceId, item);
  main.toggleAttribute("data-detail", instanceId !== null);
  if (item !== null && !item.marks?.read) inbox.mark([item], { read: true });
}

function close() {
  goTo(inbox.state.view, null, "replaceState");
  show(null, null);
  list.focus();
}

/** "Back" leads to each view and task that was chosen, but not to each row that the cursor passed. */
function goTo(view, instanceId, how = "pushState") {
  const hash = `#${view}${instanceId === null ? "" : `/${encodeURIComponent(instanceId)}`}`;
  if (location.hash === hash) return;
  history[how](null, "", hash);
  if (instanceId === null) show(null, null);
}

function followAddress() {
  const { view, instanceId } = readAddress();
  if ((view ?? VIEWS[0]) !== inbox.state.view) list.showView(view ?? VIEWS[0], { byAddress: true });
  if (instanceId === detail.instanceId) return;
  const item = allOf(inbox.state).find((found) => found.instance_id === instanceId) ?? null;
  list.mark(item);
  goTo(inbox.state.view, instanceId, "replaceState");
  show(instanceId, item);
}

/** `#view/instance` */
function readAddress() {
  const [view, ...rest] = location.hash.slice(1).split("/");
  return { view: VIEWS.includes(view) ? view : null, instanceId: decoded(rest.join("/")) || null };
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || document.querySelector("dialog[open]")) return;
  if (event.target.closest?.("input, select, textarea")) return;
  const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (action === undefined) return;
  event.preventDefault();
  action();
}

function keys() {
  const moveBy = (by) => () => {
    list.focus();
    list.move(by);
  };
  const mark = (changes) => () => list.current !== null && inbox.mark([list.current], changes(list.current));
  return {
    ...Object.fromEntries(VIEWS.map((view, index) => [String(index + 1), () => list.showView(view)])),
    ...Object.fromEntries(Object.entries(CHANGES).map(([key, changes]) => [key, mark(changes)])),
    m: () => menu.open(),
    j: moveBy(1),
    k: moveBy(-1),
    o: openPage,
    a: () => detail.decide(),
    b: () => several.opener.hidden || several.open(),
    r: () => inbox.reload(),
    "/": () => list.focusSearch(),
    "?": () => help.showModal(),
    Escape: onEscape,
  };
}

function onEscape() {
  if (!document.activeElement?.closest(".detail")) list.clearSearch();
  else if (WIDE.matches) list.focus();
  else close();
}

function openPage() {
  const page = main.querySelector(".open-page");
  if (page !== null) page.click();
  else if (approvalPage(list.current)) open(approvalPage(list.current), "_blank", "noopener,noreferrer");
}
