// The operator's page: the overview, every few seconds, and one search.

import { Latest } from "./api.js";
import { element, ownLink, replace } from "./dom.js";
import { Format } from "./format.js";
import { callbackSearch } from "./ops-search.js";
import { PANELS, notices, noticesShown } from "./ops-panels.js";
import { webhooksPanel } from "./ops-webhooks.js";
import { liveSign, panel, panelPage, whileVisible } from "./page-head.js";
import { pageApi, signInAs } from "./sign-in.js";
import { problemShown } from "./states.js";
import { chosenWords } from "./words.js";

const EVERY_MS = 5000;

class Operation {
  constructor(root, api) {
    this._root = root;
    this._api = api;
    this._overview = null;
    this._loading = new Latest();
  }

  start() {
    this.draw(chosenWords());
    const sought = readAddress();
    if (sought !== "") this._search.find(sought);
    this._refresh = whileVisible(() => this._load(), EVERY_MS);
    addEventListener("online", () => this._refresh());
  }

  draw(words) {
    const sought = this._search?.sought ?? "";
    const page = { api: this._api, words, ops: words.ops, format: new Format(words.tag), refresh: () => this._refresh() };
    this._page = page;
    this._live = liveSign({ ...words.live, ...words.ops.live });
    this._search = callbackSearch(page);
    const webhooks = webhooksPanel(page);
    this._shown = [
      { name: "notices", part: (overview) => notices(overview, page), draw: (found) => noticesShown(found, page) },
      ...PANELS.map(({ name, part, hint, content }) => {
        const draw = (found) => panel(name, words.ops.headings[name], hint?.(found, page), ...[content(found, page, name)].flat());
        return { name, part, draw };
      }),
      { name: "webhooks", part: (overview) => overview.webhooks ?? undefined, draw: webhooks },
    ];
    this._panels = element("div", { class: "panels" });
    this._drawn = new Map();
    const frame = { title: words.ops.title, own: [this._live.root], other: [ownLink("/waiting", words.waiting.title)], onLanguage: (next) => this.draw(next) };
    panelPage(this._root, words, frame, this._search.root, this._panels);
    if (sought !== "") this._search.find(sought);
    this._live.show("connecting");
    if (this._overview !== null) this._show();
  }

  _load() {
    return this._loading.run((signal) => this._api.get("/v1/ops/overview", {}, signal), {
      found: (overview) => {
        this._overview = overview;
        this._show();
        this._live.show("live");
      },
      failed: (problem) => {
        // The token was taken back: the page asks for another.
        if (problem.isRefusal) location.reload();
        this._live.show("waiting");
        if (this._overview === null) replace(this._panels, problemShown(problem, this._page.words, () => this._refresh()));
      },
    });
  }

  /** Only what changed is drawn again, and no plot while somebody reads its values. */
  _show() {
    if (this._drawn.size === 0) replace(this._panels);
    for (const { name, part, draw } of this._shown) {
      const found = part(this._overview);
      const signature = JSON.stringify(found);
      const known = this._drawn.get(name);
      if (known?.signature === signature || known?.root.matches(".panel:has(.plot-area:focus, .plot-area:hover, .table-scroller:focus)")) continue;
      const root = draw(found);
      if (known) exchange(known.root, root);
      else this._panels.append(root);
      this._drawn.set(name, { signature, root });
    }
  }
}

/** The focus stays where it is, and who has scrolled a table to its last columns is not thrown back to the first. */
function exchange(old, made) {
  const tables = (root) => [...root.querySelectorAll(".table-scroller")];
  const scrolled = tables(old).map(({ scrollLeft, scrollTop }) => [scrollLeft, scrollTop]);
  const focused = old.querySelector(":focus")?.dataset.keep;
  old.replaceWith(made);
  for (const [number, table] of tables(made).entries()) table.scrollTo(...(scrolled[number] ?? [0, 0]));
  if (focused) made.querySelector(`[data-keep="${CSS.escape(focused)}"]`)?.focus();
}

/** The id behind `#`, as it was given; as it stands where somebody cut the link in the middle of a character. */
function readAddress() {
  const given = location.hash.slice(1);
  try {
    return decodeURIComponent(given);
  } catch {
    return given;
  }
}

async function main() {
  const root = document.querySelector("#page");
  const api = pageApi();
  const words = chosenWords();
  await signInAs(api, root, words, ({ operator }) => operator, words.ops.signIn);
  new Operation(root, api).start();
}

main();
