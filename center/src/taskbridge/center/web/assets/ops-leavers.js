// The operator's page: hands over all pending tasks of a person who leaves, with a preview and what became of them.

import { outcome, pathOf } from "./api.js";
import { button, debounced, element, labelled, openDialog, recordsTable, replace, sure } from "./dom.js";
import { noneShown, panel } from "./page-head.js";
import { colleaguePicker } from "./people-picker.js";
import { UNDER_WAY, sayProblem, statusLine } from "./states.js";

const EVERY_MS = 2000;
/** Of one request. */
const MOST = 200;

/** A panel for an operator who signed in; null for anybody else, whom the service would refuse. */
export function leaversPanel({ api, words, ops, format }, { mode, corp_id: corpId, user_id: userId }) {
  if (mode !== "sso") return null;
  const { leavers: said } = ops;
  const me = { corpId, userId };
  const line = statusLine();
  const again = debounced(load, EVERY_MS);
  const chosen = element("div", { class: "stack" });
  const content = element("div", { class: "stack" });
  const start = button(said.start, () => pick(said.who, null, (found) => choose(found), said.byId), { class: "primary-button" });
  const name = ({ name: known, user_id: id }) => known || id;
  let leaver = null;
  let isAway = false;

  const pathFor = ({ user_id: user }) => `/v1/ops${pathOf({ corpId, userId: user }, "hand-over").slice("/v1".length)}`;

  /** A dialog with a search of people, and with a field for the id of others if that has a label. */
  async function pick(title, without, found, byId = null) {
    const body = element("div", { class: "stack" });
    const root = openDialog(title, {}, body, button(words.close, () => root.close()));
    const chosen = (person) => (root.close(), found(person));
    const picker = await colleaguePicker(api, me, words, chosen, without);
    replace(body, picker ?? element("p", {}, words.acting.nobody), byId === null ? null : typed(byId, chosen));
  }

  /** For who is not imported any more. */
  function typed(label, chosen) {
    const field = element("input", { required: true, maxlength: "200", autocomplete: "off" });
    const submit = (event) => {
      event.preventDefault();
      const id = field.value.trim();
      if (id !== "") chosen({ user_id: id, name: null });
    };
    return element("form", { class: "leavers-typed stack", on: { submit } }, labelled(label, field), element("button", { class: "quiet-button" }, said.choose));
  }

  async function choose(found) {
    leaver = found;
    line.say("");
    await load();
  }

  async function load() {
    again.cancel();
    const asked = leaver;
    const [found, problem] = await outcome(api.get(pathFor(asked)));
    if (asked !== leaver) return;
    if (problem === null) {
      if (isAway) line.say("");
      isAway = false;
      return show(found);
    }
    isAway = true;
    line.say(sayProblem(problem, words)[0]);
    again();
  }

  function show({ processes, handed, staying }) {
    const stay = Object.entries(staying);
    const waits = processes.reduce((sum, { pending }) => sum + pending, 0) - stay.reduce((sum, [, count]) => sum + count, 0);
    const busy = [...UNDER_WAY].reduce((sum, status) => sum + (handed[status] ?? 0), 0);
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
      stay.length > 0 ? element("ul", { class: "note leavers-staying" }, ...stay.map(([reason, count]) => element("li", {}, said.stays[reason]?.(format.number(count)) ?? `${reason}: ${format.number(count)}`))) : null,
      Object.keys(handed).length > 0 ? element("p", { class: "note leavers-progress", role: "status" }, said.progress(format.number(handed.DONE ?? 0), format.number(busy), format.number(failed), format.number(handed.OVERTAKEN ?? 0))) : null,
      waits > 0 ? button(said.handOver, () => pick(said.to, leaver.user_id, (to) => confirm(to, Math.min(waits, MOST))), { class: "primary-button", data: { keep: "hand-over" } }) : null,
    );
    if (busy > 0 || staying["under-way"] > 0) again();
    else again.cancel();
  }

  async function confirm(to, count) {
    const asked = leaver;
    const question = said.sure(format.number(count), name(leaver), name(to));
    if (await sure(words, question, null, said.consequence, said.handOver)) handOver(asked, to);
  }

  async function handOver(asked, to) {
    again.cancel();
    line.say("");
    const [found, problem] = await outcome(api.send("POST", pathFor(asked), { recipient_id: to.user_id }));
    if (asked !== leaver) return;
    if (problem === null) {
      line.say(said.recorded(format.number(found.recorded), name(to)));
      show(found);
      return;
    }
    line.say(sayProblem(problem, words)[0]);
    again();
  }

  replace(chosen, start, content, line.root);
  return panel("leavers", said.title, said.hint, chosen);
}
