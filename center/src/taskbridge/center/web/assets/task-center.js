// The task-center page: list on one side, details on the other, both of one inbox.

import { approvalPage, TaskList } from "./task-list.js";
import { Actions } from "./actions.js";
import { severalDialog } from "./deciding.js";
import { Delegated, delegationDialog } from "./delegating.js";
import { Detail } from "./detail.js";
import { button, closing, dialog, element, icon, ownLink, replace } from "./dom.js";
import { Inbox, VIEWS } from "./inbox.js";
import { listMenu } from "./list-menu.js";
import { CHANGES } from "./mark-tools.js";
import { Notifications } from "./notifications.js";
import { startWorker } from "./offline.js";
import { liveSign, pageHead } from "./page-head.js";
import { nameOf } from "./people-picker.js";
import { accountMenu, leavePerson } from "./account.js";
import { forgetToken, pageApi, signIn } from "./sign-in.js";
import { chosenWords } from "./words.js";

const DETAIL_AFTER_MS = 120;
const WIDE = matchMedia("(min-width: 60rem)");

class TaskCenter {
  constructor(root, api, words, person, me) {
    this._api = api;
    this._words = words;
    this._me = me;
    this._isOwn = me.corp_id === person.corpId && me.user_id === person.userId;
    this._name = this._isOwn ? (me.user_name ?? null) : null;
    // An operator sees somebody else's lists, and not what that person marked.
    this._inbox = new Inbox(api, person, { marks: this._isOwn || me.mode !== "sso" });
    this._inbox.view = readAddress().view ?? VIEWS[0];
    Object.assign(this._inbox.filter, history.state);
    history.replaceState(null, "");
    this._actions = new Actions(api, this._inbox);
    this._delegated = new Delegated(api, this._actions);
    this._draw(root, words);
    this._inbox.addEventListener("change", () => this._onChange());
    addEventListener("hashchange", () => this._followAddress());
    document.addEventListener("keydown", (event) => this._onKey(event));
    this._inbox.start();
    for (const each of [this._actions, this._delegated]) each.addEventListener("change", () => this._onActions());
    this._followAddress();
    startWorker({
      open: (hash) => {
        location.hash = hash;
      },
      started: () => this._loadAgain(),
    });
    this._loadOthers();
    if (!this._isOwn) this._learnName();
  }

  /** So that the service worker has it: whose lists they are, and then the lists. */
  async _loadAgain() {
    await this._api.get("/v1/me").catch(() => {});
    await this._inbox.reload();
    this._loadOthers();
  }

  /** It stores the lists of people who sign in, and no others. */
  _loadOthers() {
    if (this._isOwn && this._me.mode === "sso" && navigator.serviceWorker?.controller) this._inbox.loadOthers();
  }

  async _learnName() {
    this._name = await nameOf(this._api, this._inbox.person);
    this._chip.replaceWith(this._who());
  }

  _draw(root, words) {
    this._delegationDialog = delegationDialog(this._api, this._inbox.person, words, () => this._inbox.apps.labels(words));
    this._menu = listMenu(this._api, this._inbox, words, {
      settings: [
        ...new Notifications(this._inbox, words).items,
        { text: () => (this._actions.any ? words.delegating.title : null), act: () => void this._delegationDialog.open() },
      ],
      say: (text) => this._list.say(text),
    });
    const several = (title, items) => severalDialog(this._actions, words, { title, items, show: (found) => this._choose({ item: found, byKeyboard: true }) });
    const opener = (title, { open }) => button(title, open, { class: "quiet-button several-button", hidden: true });
    this._severalDialog = several(words.acting.several, () => (this._inbox.view === "pending" ? this._inbox.items : []));
    this._several = opener(words.acting.several, this._severalDialog);
    this._delegatedDialog = several(words.delegating.received, () => this._delegated.items);
    this._fromOthers = opener(words.delegating.received, this._delegatedDialog);
    this._list = new TaskList(this._inbox, words, { tools: [...this._menu.parts, this._fromOthers, this._several] });
    this._list.addEventListener("choose", ({ detail }) => this._choose(detail));
    this._list.addEventListener("cursor", ({ detail }) => this._onCursor(detail.item));
    this._list.addEventListener("view", ({ detail }) => this._goTo(detail.view, null));
    this._detail = new Detail(this._api, this._inbox, words, { close: () => this._close(), actions: this._actions });
    this._live = liveSign(words.live);
    const keys = words.keys.flatMap(([names, meaning]) => [element("dt", {}, ...names.map((name) => element("kbd", {}, name))), element("dd", {}, meaning)]);
    this._help = dialog(words.help, { class: "small", closedby: "any" }, element("dl", { class: "keys" }, ...keys), closing(words));
    this._main = element("main", { class: "center" }, this._list.root, this._detail.root);
    const dialogs = [this._help, this._severalDialog.root, this._delegatedDialog.root, this._delegationDialog.root];
    replace(root, button(words.skip, () => this._list.focus(), { class: "primary-button skip" }), this._head(words), this._main, ...dialogs);
    this._onChange();
  }

  _head(words) {
    const help = button("?", () => this._help.showModal(), { class: "tool", "aria-label": words.help, title: words.help });
    this._account = accountMenu(this._api, this._me, words, { isOwn: this._isOwn });
    const own = [this._live.root, this._who(), this._account, help];
    const other = this._me.operator ? [ownLink("/ops", words.ops.title)] : [];
    return pageHead(words, { title: words.product, other, own, typed: () => this._inbox.filter });
  }

  /** Whose list it is: by name where that is known. */
  _who() {
    const { userId } = this._inbox.person;
    const content = [icon("person"), element("bdi", { class: "cut" }, this._name ?? userId)];
    const label = `${this._words.signIn.switch}: ${this._name ? `${this._name}, ${userId}` : userId}`;
    if (this._account !== null) this._chip = button(content, () => {}, { class: "quiet-button who", title: userId, popovertarget: this._account.id });
    else if (this._me.mode === "sso") this._chip = element("span", { class: "quiet-button who", title: userId }, content[1]);
    else this._chip = button(content, switchPerson, { class: "quiet-button who", title: label, "aria-label": label });
    return this._chip;
  }

  _onActions() {
    const count = this._delegated.items.length;
    this._fromOthers.hidden = count === 0;
    this._fromOthers.textContent = `${this._words.delegating.received} (${count})`;
    this._delegatedDialog.render();
    this._several.hidden = !this._actions.any || this._inbox.view !== "pending";
    this._severalDialog.render();
  }

  _onChange() {
    this._onActions();
    this._menu.update();
    this._live.show(this._inbox.live);
    const pending = this._inbox.countOf("pending");
    document.title = `${pending > 0 ? `(${pending}) ` : ""}${this._words.views[this._inbox.view]} · ${this._words.product}`;
    this._awaitItem();
    if (this._inbox.live === "refused" && this._inbox.problem?.status === 401) {
      forgetToken();
      location.reload();
    }
  }

  /** A link named the instance only: its row, once loaded, becomes the current one. */
  _awaitItem() {
    const id = this._detail.instanceId;
    if (id === null || this._list.current !== null || this._seenRow === id) return;
    const item = this._inbox.all.find((found) => found.instance_id === id);
    if (item === undefined) return;
    this._seenRow = id;
    this._list.mark(item);
    this._detail.show(id, item);
    this._read(item);
  }

  _choose({ item, byKeyboard }) {
    clearTimeout(this._following);
    this._goTo(this._inbox.view, item.instance_id);
    this._show(item.instance_id, item);
    this._read(item);
    if (byKeyboard || !WIDE.matches) this._detail.focus();
  }

  _onCursor(item) {
    clearTimeout(this._following);
    if (!WIDE.matches) return;
    // Who holds the key down passes over rows that nobody needs to load.
    this._following = setTimeout(() => {
      this._goTo(this._inbox.view, item.instance_id, readAddress().instanceId === null ? "pushState" : "replaceState");
      this._show(item.instance_id, item);
      this._read(item);
    }, DETAIL_AFTER_MS);
  }

  _show(instanceId, item) {
    this._detail.show(instanceId, item);
    this._main.toggleAttribute("data-detail", instanceId !== null);
  }

  _close() {
    this._goTo(this._inbox.view, null, "replaceState");
    this._show(null, null);
    this._list.focus();
  }

  /** "Back" leads to each view and task that was chosen, but not to each row that the cursor passed. */
  _goTo(view, instanceId, how = "pushState") {
    const hash = `#${view}${instanceId === null ? "" : `/${encodeURIComponent(instanceId)}`}`;
    if (location.hash === hash) return;
    history[how](null, "", hash);
    if (instanceId === null) this._show(null, null);
  }

  _followAddress() {
    const { view, instanceId } = readAddress();
    if ((view ?? VIEWS[0]) !== this._inbox.view) this._list.showView(view ?? VIEWS[0], { byAddress: true });
    if (instanceId === this._detail.instanceId) return;
    const item = this._inbox.all.find((found) => found.instance_id === instanceId) ?? null;
    this._list.mark(item);
    this._goTo(this._inbox.view, instanceId, "replaceState");
    this._show(instanceId, item);
    if (item !== null) this._read(item);
  }

  _read(item) {
    if (!item.marks?.read) this._inbox.mark([item], { read: true });
  }

  _onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || document.querySelector("dialog[open]")) return;
    if (event.target.closest?.("input, select, textarea")) return;
    const action = this._keys()[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (action === undefined) return;
    event.preventDefault();
    action();
  }

  _keys() {
    const moveBy = (by) => () => {
      this._list.focus();
      this._list.move(by);
    };
    const views = Object.fromEntries(VIEWS.map((view, index) => [String(index + 1), () => this._list.showView(view)]));
    const marks = Object.fromEntries(Object.entries(CHANGES).map(([key, changes]) => [key, () => this._mark(changes)]));
    return {
      ...views,
      ...marks,
      m: () => this._menu.open(),
      j: moveBy(1),
      k: moveBy(-1),
      o: () => this._openPage(),
      a: () => this._detail.decide(),
      b: () => this._several.hidden || this._severalDialog.open(),
      r: () => this._inbox.reload(),
      "/": () => this._list.focusSearch(),
      "?": () => this._help.showModal(),
      Escape: () => this._onEscape(),
    };
  }

  _mark(changes) {
    const item = this._list.current;
    if (item !== null) this._inbox.mark([item], changes(item));
  }

  _onEscape() {
    if (document.activeElement?.closest(".detail")) {
      if (WIDE.matches) this._list.focus();
      else this._close();
    } else this._list.clearSearch();
  }

  _openPage() {
    const page = this._main.querySelector(".open-page") ?? null;
    if (page !== null) page.click();
    else if (approvalPage(this._list.current)) open(approvalPage(this._list.current), "_blank", "noopener,noreferrer");
  }
}

/** `#view/instance` */
function readAddress() {
  const [view, ...rest] = location.hash.slice(1).split("/");
  let instanceId = null;
  try {
    instanceId = rest.length > 0 && rest[0] !== "" ? decodeURIComponent(rest.join("/")) : null;
  } catch {
    // Somebody cut the link in the middle of a character.
  }
  return { view: VIEWS.includes(view) ? view : null, instanceId };
}

function switchPerson() {
  forgetToken();
  leavePerson("/");
}

const root = document.querySelector("#page");
const asked = new URLSearchParams(location.search);
const api = pageApi();
const given = { corpId: asked.get("corp_id"), userId: asked.get("user_id"), choose: asked.has("choose") };
const { me, corpId, userId } = await signIn(api, root, chosenWords(), given);
new TaskCenter(root, api, chosenWords(), { corpId, userId }, me);
