// The operator's page: the overview, every few seconds, and one search.

import { Latest } from "./api.js";
import { drawList, element, ownLink, redraw, replace } from "./dom.js";
import { Format } from "./format.js";
import { callbackSearch } from "./ops-search.js";
import { assistantsPanel } from "./ops-assistants.js";
import { leaversPanel } from "./ops-leavers.js";
import { PANELS, notices, noticesShown } from "./ops-panels.js";
import { webhooksPanel } from "./ops-webhooks.js";
import { decoded, liveSign, panelContent, panelPage, whileVisible } from "./page-head.js";
import { pageApi, whoIsAsking } from "./sign-in.js";
import { problemShown } from "./states.js";
import { chosenWords } from "./words.js";

const EVERY_MS = 5000;
/** Somebody reads its values. */
const READ = ":has(.plot-area:focus, .plot-area:hover, .records:focus)";

const root = document.querySelector("#page");
const api = pageApi();
const me = await whoIsAsking(api, root, chosenWords(), { page: "ops", mayEnter: ({ operator }) => operator });
const words = chosenWords();

const page = { api, words, ops: words.ops, format: new Format(words.tag), refresh: () => refresh() };
const live = liveSign({ ...words.live, ...words.ops.live });
const callbacks = callbackSearch(page);
const panels = element("div", { class: "panels" });
const parts = [
  { root: element("ul", { class: "notices line" }), part: (overview) => notices(overview, page), draw: (found) => noticesShown(found, page) },
  ...[...PANELS, webhooksPanel(page)].map(({ name, part, hint, content }) => {
    const draw = (found) => panelContent(words.ops.headings[name], hint?.(found, page), content(found, page, name));
    return { root: element("section", { class: `panel ${name}` }), part, draw };
  }),
];
const loading = new Latest();
const isShown = () => parts[0].root.isConnected;

/** Only what changed is drawn again. */
function show(overview) {
  if (!isShown()) replace(panels);
  const shown = parts.filter(({ part }) => part(overview) !== undefined);
  drawList(panels, shown, ({ root }) => root, ({ root, part, draw }) => {
    const found = part(overview);
    if (!root.matches(READ)) redraw(root, found, () => draw(found));
    return root;
  });
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
      if (!isShown()) replace(panels, problemShown(problem, words, () => refresh()));
    },
  });

panelPage(root, words, { title: words.ops.title, own: [live.root], other: [ownLink("/waiting", words.waiting.title)], typed: callbacks.typed }, callbacks.root, ...[leaversPanel(page, me), assistantsPanel(page, me)].filter(Boolean), panels);
live.show("connecting");
callbacks.find(history.state ?? decoded(location.hash.slice(1)));
const refresh = whileVisible(load, EVERY_MS);
addEventListener("online", refresh);
