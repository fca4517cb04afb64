// <taskbridge-tasks>: somebody's tasks as an element for an enterprise's own portal. See docs/how-to/embed-the-task-list.md.

import { Api } from "./api.js";
import { replace, webAddress } from "./dom.js";
import { VIEWS } from "./inbox-state.js";
import { Inbox } from "./inbox.js";
import { approvalPage, taskList } from "./task-list.js";
import { wordsFor } from "./words.js";

/** One set for all elements of a page. Fetched, and not linked: so the portal's policy need not allow our styles. */
const SHEETS = Promise.all(["base.css", "list.css", "taskbridge-tasks.css"].map(styleSheet));

/**
 * Attributes: `base` (the streams service's address; by default where this module came from), `corp-id`, `user-id`,
 * `view`, `views` (comma-separated), `lang`, `theme` (auto, light, dark), `token-provider` (the name of a global
 * function that gives a bearer token, or a promise of one), `credentials` ("include": send cookies across origins).
 * The property `tokenProvider` takes the function itself.
 *
 * Events, which bubble out of the shadow: `taskbridge-select` (`detail.item`; unless prevented, the approval page is
 * opened), `taskbridge-counts` (`detail.counts`), `taskbridge-live` (`detail.state`), `taskbridge-error` (`detail`:
 * `status`, `message`).
 */
export class TaskbridgeTasks extends HTMLElement {
  static observedAttributes = ["base", "corp-id", "user-id", "view", "views", "lang", "token-provider", "credentials"];

  #inbox = null;
  #list = null;
  #told = {};
  #tokenProvider = null;
  #starting = false;

  constructor() {
    super();
    this.attachShadow({ mode: "open" });
  }

  get tokenProvider() {
    return this.#tokenProvider;
  }

  set tokenProvider(provider) {
    this.#tokenProvider = provider;
    this.#restart();
  }

  /** The item that is current in the list, or null. */
  get selected() {
    return this.#list?.current ?? null;
  }

  /** Query the service again. */
  reload() {
    return this.#inbox?.reload();
  }

  connectedCallback() {
    this.#restart();
  }

  disconnectedCallback() {
    this.#stop();
  }

  attributeChangedCallback(name, before, after) {
    if (before === after || !this.isConnected) return;
    if (name === "view" && this.#list !== null && VIEWS.includes(after)) {
      if (after !== this.#inbox.state.view) this.#list.showView(after);
    } else this.#restart();
  }

  /** Several attributes that are set in one go start the list once. */
  #restart() {
    if (this.#starting || !this.isConnected) return;
    this.#starting = true;
    queueMicrotask(async () => {
      const made = await SHEETS;
      this.#starting = false;
      this.#stop();
      if (!this.isConnected) return;
      this.shadowRoot.adoptedStyleSheets = made;
      this.#start();
    });
  }

  #start() {
    const person = { corpId: this.getAttribute("corp-id"), userId: this.getAttribute("user-id") };
    const base = webAddress(this.getAttribute("base")) ?? new URL(import.meta.url).origin;
    if (!person.corpId || !person.userId) {
      replace(this.shadowRoot);
      return;
    }
    const words = wordsFor(this.getAttribute("lang") || document.documentElement.lang || undefined);
    const credentials = this.getAttribute("credentials") === "include" ? "include" : "same-origin";
    const api = new Api({ base, credentials, token: async () => this.#token() });
    const views = this.#views();
    const asked = this.getAttribute("view");
    this.#inbox = new Inbox(api, person, { view: views.includes(asked) ? asked : views[0], searched: views });
    this.#list = taskList(this.#inbox, words, { views, onChoose: (item) => this.#onChoose(item) });
    this.#inbox.addEventListener("change", () => this.#tell());
    replace(this.shadowRoot, this.#list.root);
    this.#inbox.start();
  }

  #stop() {
    this.#inbox?.stop();
    this.#list?.dispose();
    this.#inbox = null;
    this.#list = null;
    this.#told = {};
  }

  #views() {
    const asked = (this.getAttribute("views") ?? "").split(",").map((view) => view.trim());
    const known = VIEWS.filter((view) => asked.includes(view));
    return known.length > 0 ? known : VIEWS;
  }

  async #token() {
    const named = this.getAttribute("token-provider");
    const provider = this.#tokenProvider ?? (named === null ? null : globalThis[named]);
    return typeof provider === "function" ? await provider() : null;
  }

  #onChoose(item) {
    const chosen = new CustomEvent("taskbridge-select", { detail: { item }, bubbles: true, composed: true, cancelable: true });
    const page = approvalPage(item);
    if (this.dispatchEvent(chosen) && page !== null) open(page, "_blank", "noopener,noreferrer");
  }

  #tell() {
    const { counts, live, problem } = this.#inbox.state;
    this.#tellOnce("counts", JSON.stringify(counts), { counts });
    this.#tellOnce("live", live, { state: live });
    if (problem !== null) this.#tellOnce("error", problem, { status: problem.status, message: problem.message });
  }

  #tellOnce(name, value, detail) {
    if (this.#told[name] === value) return;
    this.#told[name] = value;
    this.dispatchEvent(new CustomEvent(`taskbridge-${name}`, { detail, bubbles: true, composed: true }));
  }
}

async function styleSheet(name) {
  const response = await fetch(new URL(name, import.meta.url), { credentials: "omit" });
  const sheet = new CSSStyleSheet();
  await sheet.replace(response.ok ? sizedByUs(await response.text()) : "");
  return sheet;
}

/** A rem is the portal's, which may be anything: of a condition of @container, which takes no variables, too. */
function sizedByUs(css) {
  const line = (text) => {
    const isCondition = text.trimStart().startsWith("@");
    return text.replace(/(-?[\d.]+)rem\b/g, (_, size) => (isCondition ? `${size * 16}px` : `calc(${size} * var(--taskbridge-size, 16px))`));
  };
  return css.split("\n").map(line).join("\n");
}

if (!customElements.get("taskbridge-tasks")) customElements.define("taskbridge-tasks", TaskbridgeTasks);
