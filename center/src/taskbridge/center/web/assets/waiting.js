// What waits in an organisation: by process and by person, for operators and the owners of apps.

import { Latest, search } from "./api.js";
import { Apps } from "./apps.js";
import { button, element, labelled, offer, ownLink, recordsTable, replace } from "./dom.js";
import { Format } from "./format.js";
import { noneShown, panel, panelPage, whileVisible } from "./page-head.js";
import { insist, pageApi, whoIsAsking } from "./sign-in.js";
import { nothingToShow, problemShown, statusShown } from "./states.js";
import { chosenWords } from "./words.js";

const EVERY_MS = 60_000;

const root = document.querySelector("#page");
const api = pageApi();
const me = await whoIsAsking(api, root, chosenWords());
const words = chosenWords();
const { items: corps } = await insist(root, words, () => api.get("/v1/corps"));
const format = new Format(words.tag);
const loading = new Latest();

const asked = new URLSearchParams(location.search);
/** Those who own apps only see one at a time, and no lists of others. */
const own = me.mode === "sso" && !me.operator ? me.owned_apps : null;
let corp = asked.get("corp_id") ?? (corps.includes(me.corp_id) ? me.corp_id : corps[0]) ?? "";
let app = asked.get("app_type") ?? own?.[0] ?? null;
/** An empty name counts: that of tasks without one. */
let process = asked.get("process_name");
/** They stay to choose from while one of them is shown. */
let apps = new Apps(own ?? []);

const corpField = field("corp_id", (chosen) => {
  corp = chosen;
  apps = new Apps();
  goTo(null, null);
});
const appField = field("app_type", (chosen) => goTo(chosen || null, null));
const form = element(
  "form",
  { class: "find-form line waiting-form" },
  own === null ? labelled(words.signIn.corp, corpField) : null,
  labelled(words.columns.app, appField),
);
const ownsNone = own?.length === 0;
const panels = element("div", { class: "panels", "aria-live": "polite" }, ownsNone ? nothingToShow("inbox", words.waiting.noApps) : null);
panelPage(root, words, { title: words.waiting.title }, element("section", { class: "panel", hidden: ownsNone }, form), panels);
offerChoices();
const again = whileVisible(load, EVERY_MS);

function field(name, choose) {
  return element("select", { name, on: { change: ({ target }) => choose(target.value) } });
}

/** Which organisation and app: only what there is to choose. */
function offerChoices() {
  const choices = corps.includes(corp) || corp === "" ? corps : [corp, ...corps];
  offer(corpField, choices.map((each) => [each, each]), corp);
  offer(appField, [...(own === null ? [["", words.allApps]] : []), ...apps.labels(words)], app ?? "");
}

function goTo(chosenApp, chosenProcess) {
  [app, process] = [chosenApp, chosenProcess];
  history.replaceState(null, "", `?${new URLSearchParams([["corp_id", corp], ...narrowed()])}`);
  offerChoices();
  again();
}

function narrowed() {
  return Object.entries({ app_type: app, process_name: process }).filter(([, value]) => value !== null);
}

async function load() {
  if (corp === "" || (own !== null && app === null)) return;
  if (!corps.includes(corp)) {
    replace(panels, nothingToShow("search", words.waiting.unknownCorp));
    return;
  }
  const path = `/v1/corps/${encodeURIComponent(corp)}/waiting?${new URLSearchParams(narrowed())}`;
  await loading.run((signal) => api.get(path, {}, signal), {
    found: (found) => {
      if (app !== null) apps.know(app);
      for (const { app_type: each, process_name: name } of found.processes) apps.know(each, name);
      offerChoices();
      show(found);
    },
    failed: (problem) => replace(panels, problemShown(problem, words, again)),
  });
}

function show({ processes, people, complete }) {
  const { waiting, columns } = words;
  replace(
    panels,
    process === null ? null : button(waiting.allProcesses, () => goTo(app, null)),
    table(waiting.processes, [columns.process, processShown], processes),
    table(waiting.people, [waiting.person, personShown], people),
    complete ? null : element("p", { class: "faint" }, waiting.more),
  );
}

function processShown({ app_type: its, process_name: name }) {
  return process === null ? button(name ?? its, () => goTo(its, name ?? "")) : (name ?? its);
}

/** A link to the person's tasks, for those who may see them. */
function personShown({ user_id: user, name }) {
  const address = `/${search({ corp_id: corp, user_id: user })}#pending`;
  return own === null ? ownLink(address, name ?? user, "quiet-button") : (name ?? user);
}

function table(label, first, rows) {
  const columns = [
    [...first, "row"],
    [words.statuses.PENDING, (row) => format.number(row.pending)],
    [words.due.overdue, ({ overdue }) => (overdue === 0 ? "0" : statusShown("OVERDUE", words, format.number(overdue)))],
    [words.waiting.oldest, ({ oldest_at: at }) => element("time", { datetime: at, title: format.full(at) }, format.ago(at))],
  ];
  return panel("", label, null, rows.length > 0 ? recordsTable(label, columns, rows) : noneShown(words.waiting.none));
}
