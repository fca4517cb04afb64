// One decision that an assistant proposes: what it is about, and the person's confirmation or refusal of it.

import { outcome } from "./api.js";
import { changesShown, CurrentForm, formAge } from "./current-form.js";
import { actionSaid } from "./deciding.js";
import { button, element, facts, ownLink, replace } from "./dom.js";
import { formShown } from "./form-values.js";
import { Format, namesIn } from "./format.js";
import { decoded, panelContent, panelPage } from "./page-head.js";
import { insist, pageApi, whoIsAsking } from "./sign-in.js";
import { UNDER_WAY, sayProblem, statusLine } from "./states.js";
import { chosenWords } from "./words.js";

const EVERY_MS = 2000;

const root = document.querySelector("#page");
const api = pageApi();
await whoIsAsking(api, root, chosenWords(), { page: "proposal", mayEnter: ({ mode }) => mode === "sso" });
const words = chosenWords();
const { proposal: said, acting } = words;
const format = new Format(words.tag);
const path = `/v1/me/proposals/${encodeURIComponent(decoded(location.pathname.split("/").at(-1)))}`;
const body = element("section", { class: "panel proposal stack" });
const line = statusLine();
let proposal = await insist(root, words, () => api.get(path));
const instance = `/v1/instances/${encodeURIComponent(proposal.instance_id)}`;
const [[state], [history]] = await Promise.all([outcome(api.get(instance)), outcome(api.get(`${instance}/history`))]);
const current = new CurrentForm(api, show);
const names = namesIn(state?.originator, history);
const context = { words, format, name: (user) => names.get(user) ?? user };
current.show(proposal.instance_id);
if (history?.reads_form) current.read();
panelPage(root, words, { title: said.title }, body);
show();

function show() {
  const { action, status, changed, remark, client, expires_at: until, instance_id: id, title } = proposal;
  const person = state?.originator;
  const isOpen = status === "OPEN" && !changed;
  const [text, bad] = sentence();
  line.say(text, bad);
  replace(
    body,
    panelContent(acting.names[action], null, element("p", {}, element("b", {}, element("bdi", {}, title || words.untitled)))),
    facts(
      [said.client, element("bdi", {}, client)],
      [acting.remark, element("bdi", { class: "form-text" }, remark || "–")],
      [acting.originator, element("bdi", {}, person?.name || person?.user_id || words.unknownPerson)],
      [words.columns.process, element("bdi", {}, state?.process_name || state?.app_type || "–")],
      [said.expires, format.time(until)],
    ),
    line.root,
    isOpen ? element("div", { class: "line" }, button(said.confirm(acting.names[action]), () => decide("confirm"), { class: "primary-button" }), button(said.discard, () => decide("discard"))) : null,
    ...(history === null ? [] : formParts()),
    ownLink(`/#pending/${encodeURIComponent(id)}`, said.open, "quiet-button"),
  );
  if (UNDER_WAY.has(proposal.action_status)) setTimeout(again, EVERY_MS);
}

function formParts() {
  const labels = history.form_labels;
  const changed = new Set(current.found?.changed.map(({ field }) => field));
  const values = current.found?.form ?? history.form;
  const sentAt = history.events.find(({ event_id: id }) => id === history.form_of)?.occurred_at;
  return [
    changesShown(current, labels, context),
    element("h3", {}, words.detail.form),
    formAge(current, sentAt, context),
    formShown(values, { words, format, labels, files: {}, address: () => null, changed }),
  ];
}

/** What became of it, and whether that is bad. */
function sentence() {
  const { action, status, changed, action_status: sent, detail } = proposal;
  if (status === "OPEN") return changed ? [acting.reasons.changed, true] : [said.nothingSent, false];
  if (status === "EXPIRED" || status === "DISCARDED") return [said.statuses[status], status === "EXPIRED"];
  const found = actionSaid({ action, status: status === "REFUSED" ? status : sent, detail }, words);
  return found === null ? [said.done, false] : [found.text, found.bad];
}

async function decide(decision) {
  for (const each of body.querySelectorAll("button")) each.disabled = true;
  if (decision === "confirm" && (await current.isUnseen())) return show();
  const [found, problem] = await outcome(api.send("POST", path, { decision, seen_form: current.found?.digest ?? "" }));
  if (problem === null) proposal = found;
  show();
  if (problem !== null) line.say(sayProblem(problem, words)[0], true);
}

async function again() {
  const [found] = await outcome(api.get(path));
  proposal = found ?? proposal;
  show();
}
