// The operator's page: hands over all pending tasks of a person who leaves, with a preview and what became of them.

import { outcome, pathOf } from "./api.js";
import { button, dialog, element, recordsTable, replace } from "./dom.js";
import { noneShown, panel } from "./page-head.js";
import { colleaguePicker } from "./people-picker.js";
import { sayProblem, statusLine } from "./states.js";

const EVERY_MS = 2000;
const UNDER_WAY = ["REQUESTED", "SENDING", "ACCEPTED", "UNCLEAR"];

/** A panel for an operator who signed in; null for anybody else, whom the service would refuse. */
export function leaversPanel({ api, words, ops, format }, { mode, corp_id: corpId, user_id: userId }) {
  if (mode !== "sso") return null;
  const { leavers: said } = ops;
  const me = { corpId, userId };
  const line = statusLine();
  const chosen = element("div", { class: "stack" });
  const content = element("div", { class: "stack" });
  const start = button(said.start, () => pick(said.who, null, (found) => choose(found)), { class: "primary-button" });
  const name = ({ name: known, user_id: id }) => known || id;
  let leaver = null;
  let timer;

  const path = () => `/v1/ops${pathOf({ corpId, userId: leaver.user_id }, "hand-over").slice("/v1".length)}`;

  /** A dialog with a search of people. */
  async function pick(title, without, found) {
    const body = element("div");
    const root = dialog(title, { on: { close: () => root.remove() } }, body, button(words.close, () => root.close()));
    document.body.append(root);
    root.showModal();
    const picker = await colleaguePicker(api, me, words, (person) => (root.close(), found(person)), without);
    replace(body, picker ?? element("p", {}, words.acting.nobody));
  }

  async function choose(found) {
    leaver = found;
    line.say("");
    await load();
  }

  async function load() {
    clearTimeout(timer);
    const asked = leaver;
    const [found, problem] = await outcome(api.get(path()));
    if (asked !== leaver) return;
    if (problem !== null) line.say(sayProblem(problem, words)[0]);
    else show(found);
  }

  function show({ processes, handed }) {
    const waits = processes.filter(({ is_possible: isPossible }) => isPossible).reduce((sum, { pending }) => sum + pending, 0);
    const busy = UNDER_WAY.reduce((sum, status) => sum + (handed[status] ?? 0), 0);
    const columns = [
      [words.columns.process, ({ process_name: process, app_type: app }) => process || app, "row"],
      [words.statuses.PENDING, ({ pending }) => format.number(pending)],
      ["", ({ is_possible: isPossible }) => (isPossible ? null : said.elsewhere)],
    ];
    const failed = (handed.FAILED ?? 0) + (handed.REFUSED ?? 0);
    replace(
      content,
      element("p", {}, element("b", {}, said.of(name(leaver)))),
      processes.length > 0 ? recordsTable(said.title, columns, processes) : noneShown(said.none),
      Object.keys(handed).length > 0 ? element("p", { class: "note leavers-progress", role: "status" }, said.progress(format.number(handed.DONE ?? 0), format.number(busy), format.number(failed), format.number(handed.OVERTAKEN ?? 0))) : null,
      waits > busy ? button(said.handOver, () => pick(said.to, leaver.user_id, (to) => confirm(to, waits - busy)), { class: "primary-button", data: { keep: "hand-over" } }) : null,
    );
    if (busy > 0) timer = setTimeout(load, EVERY_MS);
  }

  function confirm(to, count) {
    const choice = (kind, text, value) => element("button", { class: kind, value, autofocus: value === "" }, text);
    const asked = dialog(
      said.sure(format.number(count), name(leaver), name(to)),
      { class: "small", on: { close: () => (asked.remove(), asked.returnValue === "yes" && handOver(to)) } },
      element("p", { class: "faint" }, said.consequence),
      element("form", { method: "dialog", class: "line" }, choice("quiet-button", words.cancel, ""), choice("primary-button", said.handOver, "yes")),
    );
    document.body.append(asked);
    asked.showModal();
  }

  async function handOver(to) {
    clearTimeout(timer);
    line.say("");
    const [found, problem] = await outcome(api.send("POST", path(), { recipient_id: to.user_id }));
    if (problem !== null) line.say(sayProblem(problem, words)[0]);
    else show(found);
  }

  replace(chosen, start, content, line.root);
  return panel("leavers", said.title, said.hint, chosen);
}
