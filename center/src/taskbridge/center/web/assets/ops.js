// The operator's page: the overview, every few seconds, and one search.

import { Latest } from "./api.js";
import { element, ownLink, replace } from "./dom.js";
import { Format } from "./format.js";
import { callbackSearch } from "./ops-search.js";
import { PANELS, notices, noticesShown } from "./ops-panels.js";
import { webhooksPanel } from "./ops-webhooks.js";
import { decoded, liveSign, panel, panelPage, whileVisible } from "./page-head.js";
import { pageApi, whoIsAsking } from "./sign-in.js";
import { problemShown } from "./states.js";
import { chosenWords } from "./words.js";

const EVERY_MS = 5000;

const root = document.querySelector("#page");
const api = pageApi();
await whoIsAsking(api, root, chosenWords(), { page: "ops", mayEnter: ({ operator }) => operator });
const words = chosenWords();

const page = { api, words, ops: words.ops, format: new Format(words.tag), refresh: () => refresh() };
const live = liveSign({ ...words.live, ...words.ops.live });
const callbacks = callbackSearch(page);
const webhooks = webhooksPanel(page);
const panels = element("div", { class: "panels" });
const parts = [
  { name: "notices", part: (overview) => notices(overview, page), draw: (found) => noticesShown(found, page) },
  ...PANELS.map(({ name, part, hint, content }) => {
    const draw = (found) => panel(name, words.ops.headings[name], hint?.(found, page), ...[content(found, page, name)].flat());
    return { name, part, draw };
  }),
  { name: "webhooks", part: (overview) => overview.webhooks ?? undefined, draw: webhooks },
];
const drawn = new Map();
const loading = new Latest();

/** Only what changed is drawn again, and no plot while somebody reads its values. */
function show(overview) {
  if (drawn.size === 0) replace(panels);
  for (const { name, part, draw } of parts) {
    const found = part(overview);
    const signature = JSON.stringify(found);
    const known = drawn.get(name);
    if (known?.signature === signature || known?.made.matches(".panel:has(.plot-area:focus, .plot-area:hover, .records:focus)")) continue;
    const made = draw(found);
    if (known) replace(known.made, ...made.childNodes);
    else panels.append(made);
    drawn.set(name, { signature, made: known?.made ?? made });
  }
}

const load = () =>
  loading.run((signal) => api.get("/v1/ops/overview", {}, signal), {
    found: (overview) => {
      show(overview);
      live.show("live");
    },
    failed: (problem) => {
      // The token was taken back: the page asks for another.
      if (problem.isRefusal) location.reload();
      live.show("waiting");
      if (drawn.size === 0) replace(panels, problemShown(problem, words, () => refresh()));
    },
  });

panelPage(root, words, { title: words.ops.title, own: [live.root], other: [ownLink("/waiting", words.waiting.title)], typed: callbacks.typed }, callbacks.root, panels);
live.show("connecting");
callbacks.find(history.state ?? decoded(location.hash.slice(1)));
const refresh = whileVisible(load, EVERY_MS);
addEventListener("online", refresh);
