// The auditors' page: who did what, newest first, filtered by what the address says.

import { Latest, search } from "./api.js";
import { UNTOUCHED, button, element, labelled, offer, recordsTable, replace } from "./dom.js";
import { Format } from "./format.js";
import { panelPage } from "./page-head.js";
import { pageApi, whoIsAsking } from "./sign-in.js";
import { nothingToShow, problemShown } from "./states.js";
import { chosenWords } from "./words.js";

const PART = 100;
const PSEUDONYM = /^person-[0-9a-f]{16}$/;
const FILTERS = ["person", "action", "day"];

const root = document.querySelector("#page");
const api = pageApi();
const me = await whoIsAsking(api, root, chosenWords(), { page: "audit", mayEnter: ({ auditor }) => auditor });
const words = chosenWords();
const { audit, columns } = words;
const verbs = { ...words.acting.names, ...audit.actions };
const format = new Format(words.tag);
const loading = new Latest();
let items = [];
let isComplete = false;
let shownAddress;

const body = element("div");
// A program's token is in no link.
const csv = me.mode === "token" ? null : element("a", { class: "quiet-button", download: "audit.csv" }, audit.csv);
const form = filterForm();
panelPage(root, words, { title: audit.title }, element("section", { class: "panel audit", "aria-label": audit.title }, form, body));
const given = new URLSearchParams(location.search);
filter((name) => given.get(name) ?? "");

/** A person is an organisation, a slash and a user: of the reader's own organisation, the user alone. */
function filterForm() {
  const only = me.corp_id === null ? { pattern: "[^\\/]+\\/.+" } : { pattern: "[^\\/]+(\\/.+)?", placeholder: audit.personHint };
  const person = element("input", { type: "search", name: "person", title: audit.wrongPerson, maxlength: "513", ...only, ...UNTOUCHED });
  const apply = (event) => {
    event.preventDefault();
    if (form.reportValidity()) filter((name) => form.elements[name].value.trim());
  };
  return element(
    "form",
    { class: "find-form line", role: "search", "aria-label": audit.filters, on: { change: apply, submit: apply } },
    labelled(audit.person, person),
    labelled(columns.action, offer(element("select", { name: "action" }), Object.entries({ "": audit.allActions, ...verbs }))),
    labelled(columns.day, element("input", { type: "date", name: "day" })),
    button(words.clearFilters, () => filter(() => "")),
    csv,
  );
}

/** Show the entries of these filters: in the fields, in the address, and below. */
function filter(value) {
  for (const name of FILTERS) form.elements[name].value = value(name);
  const { person } = form.elements;
  if (me.corp_id !== null && person.value !== "" && !person.value.includes("/")) person.value = `${me.corp_id}/${person.value}`;
  const address = location.pathname + search(filters());
  if (address === shownAddress) return;
  shownAddress = address;
  history.replaceState(null, "", address);
  [items, isComplete] = [[], false];
  load();
}

function filters() {
  return Object.fromEntries(new FormData(form));
}

/** As the service takes them: a day is that of the reader's clock. */
function query() {
  const { day, ...others } = filters();
  if (day === "") return others;
  const from = new Date(`${day}T00:00`);
  const until = new Date(from);
  until.setDate(until.getDate() + 1);
  return { ...others, since: from.toISOString(), until: until.toISOString() };
}

async function load() {
  show(element("p", { class: "faint", role: "status" }, words.loading));
  await loading.run((signal) => api.get("/v1/audit", { ...query(), before: items.at(-1)?.seq ?? null, limit: PART }, signal), {
    found: (found) => {
      items.push(...found.items);
      isComplete = found.items.length < PART;
      const more = isComplete ? null : button(audit.more, load, { data: { keep: "more" } });
      show(element("p", { class: "faint", role: "status" }, audit.shown(items.length, isComplete)), more);
    },
    failed: (problem) => {
      // The session ended, or the role was taken away: the page asks again who it is.
      if (problem.isRefusal) location.reload();
      show(problemShown(problem, words, load));
    },
  });
}

/** The entries, and what is below them. */
function show(...below) {
  if (csv !== null) csv.href = `/v1/audit.csv${search(query())}`;
  const isNone = isComplete && items.length === 0;
  replace(body, isNone ? nothingToShow("search", audit.none) : [items.length > 0 ? table() : null, element("div", { class: "line" }, ...below)]);
}

function table() {
  const shown = [
    [columns.at, ([row]) => format.time(row.at)],
    [audit.who, ([row]) => who(row)],
    [columns.action, done],
    [audit.about, ([row]) => about(row), "long"],
    [audit.address, ([row]) => row.address || null],
    [audit.number, numbersOf, "mono"],
  ];
  return recordsTable(audit.title, shown, byAction(items));
}

/** What was done; of an action on a task, also how often it was sent and what became of it. */
function done(entries) {
  const [{ action, decision }] = entries;
  const verb = decision ?? action;
  const count = entries.filter((each) => each.action === "action_sent").length;
  const more = [count > 0 ? audit.sent(count) : null, audit.statuses[entries.at(-1).status]].filter(Boolean).join(" · ");
  return withDetail(element("bdi", {}, Object.hasOwn(verbs, verb) ? verbs[verb] : verb), more);
}

function who({ corp_id: corp, actor, actor_name: name }) {
  if (corp === "") return actor === "" ? audit.thisMachine : [`${audit.program} `, element("bdi", {}, actor)];
  return personShown(`${corp}/${actor}`, PSEUDONYM.test(actor) ? audit.erased : name, actor);
}

function about({ action, action_id: its, subject, subject_name: name, instance_id: instance, title }) {
  if (title !== null) return element("bdi", { title: instance }, title);
  if (its !== null) return instance;
  if (action === "read" && subject.startsWith("waiting ")) return audit.waiting(subject.slice("waiting ".length));
  if (name !== null) return personShown(subject, name, subject);
  if (PSEUDONYM.test(subject)) return withDetail(audit.erased, subject);
  return subject === "everywhere" ? audit.everywhere : subject || null;
}

/** A button that shows this person's entries. */
function personShown(person, name, id) {
  const click = () => filter((field) => (field === "person" ? person : form.elements[field].value));
  return withDetail(button(element("bdi", {}, name ?? id), click, { class: "audit-person" }), name === null ? "" : id);
}

function withDetail(text, detail) {
  return detail === "" ? text : [text, " ", element("bdi", { class: "faint" }, detail)];
}

/** Lists of entries, of each the earliest first: all that were read about one action are one list, where it began. */
function byAction(entries) {
  const lists = Map.groupBy(entries.toReversed(), ({ action_id: action, seq }) => action ?? seq);
  return [...lists.values()].toReversed();
}

function numbersOf(entries) {
  const [first, last] = [entries[0].seq, entries.at(-1).seq];
  return first === last ? String(first) : `${first} … ${last}`;
}
