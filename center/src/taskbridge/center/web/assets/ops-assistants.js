// The operator's page: which clients people use as assistants, and which of them are refused.

import { outcome } from "./api.js";
import { button, element, recordsTable, replace } from "./dom.js";
import { noneShown, panel } from "./page-head.js";
import { sayProblem, statusLine } from "./states.js";

/** A panel for an operator who signed in, where assistants are served; null for anybody else. */
export function assistantsPanel({ api, words, ops, format }, { mode, corp_id: corpId }) {
  if (mode !== "sso") return null;
  const { assistants: said } = ops;
  const path = `/v1/ops/corps/${encodeURIComponent(corpId)}/assistants`;
  const [line, content] = [statusLine(), element("div", { class: "stack" })];
  const root = panel("assistants", said.title, said.hint, content, line.root);
  root.hidden = true;
  const columns = [
    [said.client, ({ client }) => client, "row"],
    [said.people, ({ people }) => format.number(people)],
    [said.used, ({ used_at: at }) => format.time(at)],
    ["", ({ client, refused }) => button(refused ? said.allow : said.refuse, () => change(client, !refused), { data: { keep: client } })],
  ];

  function show([found, problem]) {
    if (problem?.status === 404) return;
    root.hidden = false;
    line.say(problem === null ? "" : sayProblem(problem, words)[0], true);
    if (found !== null) replace(content, found.items.length > 0 ? recordsTable(said.title, columns, found.items) : noneShown(said.none));
  }

  const change = async (client, refused) => show(await outcome(api.send("PUT", path, { client, refused })));

  outcome(api.get(path)).then(show);
  return root;
}
