// What people say about an instance: comments, and urging those whom it waits for. Read when the details are opened.

import { Latest, outcome } from "./api.js";
import { actionSaid, confirmed } from "./deciding.js";
import { button, debounced, drawList, element, labelled } from "./dom.js";
import { namesIn } from "./format.js";
import { UNDER_WAY, avatar, sayProblem, statusLine } from "./states.js";

const TEXT_MAX = 1000;
const NAMED = 3;
const LOOK_AGAIN_MS = 2000;

/** Of one instance: what was typed stays while its details are drawn again. `title` of the instance, and the reader's user id. */
export function commentsPanel(api, words, format, { instanceId, title, me }) {
  const { talk } = words;
  const path = `/v1/instances/${encodeURIComponent(instanceId)}/comments`;
  const loading = new Latest();
  const again = debounced(() => root.isConnected && load(), LOOK_AGAIN_MS);
  const note = element("p", { class: "faint" });
  const list = element("ol", { class: "comments" });
  const field = element("textarea", { rows: "2", maxlength: String(TEXT_MAX), data: { keep: "comment" } });
  const writing = labelled(talk.write, field, { class: "comment-field" });
  const send = button(talk.send, comment, { data: { keep: "send-comment" } });
  const urging = button("", urge, { data: { keep: "urge" } });
  const said = statusLine();
  const buttons = element("div", { class: "line" }, send, urging);
  const root = element("section", { class: "detail-section stack", hidden: true }, element("h3", {}, talk.title), note, list, writing, buttons, said.root);
  let found;
  let names = new Map();
  load();

  /** Failing is no harm: what was shown stays. */
  function load() {
    return loading.run((signal) => api.get(path, {}, signal), { found: render, failed: () => {} });
  }

  function render(answer) {
    found = answer;
    names = namesIn(null, found);
    const own = found.said.map(({ action_id: id, status, recipient_id: to, ...line }) => ({ ...line, key: `${id} ${status}`, status, isOwn: true, user_id: me, notified_id: to }));
    const lines = [...found.items.map((line) => ({ ...line, key: line.comment_id })), ...own];
    root.hidden = !found.may_comment && lines.length === 0;
    note.textContent = found.reason === "not-now" ? talk.notNow : found.reason === null && lines.length === 0 ? talk.none : "";
    note.hidden = note.textContent === "";
    drawList(list, lines, ({ key }) => key, (line, made) => made ?? drawLine(line));
    writing.hidden = send.hidden = !found.may_comment;
    urging.hidden = found.may_urge.length === 0;
    urging.textContent = `${words.acting.names.urge} ${waitedFor()}`;
    if (found.said.some(({ status }) => UNDER_WAY.has(status))) again();
    else again.cancel();
  }

  function waitedFor() {
    const shown = found.may_urge.slice(0, NAMED).map((id) => names.get(id) ?? id).join(words.listComma);
    return found.may_urge.length > NAMED ? `${shown} …` : shown;
  }

  function drawLine(line) {
    const { user_id: id, notified_id: to, at, text, isOwn } = line;
    const who = isOwn || id === me ? words.you : (names.get(id) ?? (id || words.unknownPerson));
    const about = line.status ? actionSaid({ action: "comment", ...line }, words) : null;
    return element(
      "li",
      { class: "comment" },
      avatar({ user_id: id, name: names.get(id) }, who),
      element(
        "div",
        { class: "stack" },
        element("p", { class: "note line" }, element("bdi", {}, who), to ? element("bdi", {}, `@${to === me ? words.you : (names.get(to) ?? to)}`) : null, at ? format.time(at) : null),
        element("bdi", { class: "form-text" }, text),
        about && element("p", { class: "deciding-said", "data-bad": about.bad }, about.text),
      ),
    );
  }

  async function comment() {
    const text = field.value.trim();
    if (text === "") field.focus();
    // What was typed meanwhile stays.
    else if ((await post("comment", text)) && field.value.trim() === text) field.value = "";
  }

  async function urge() {
    if (await confirmed(words, "urge", { title }, waitedFor())) await post("urge", "");
  }

  async function post(action, text) {
    send.disabled = urging.disabled = true;
    const [answer, problem] = await outcome(api.send("POST", path, { action, text }));
    send.disabled = urging.disabled = false;
    said.say(problem === null ? "" : (talk.problems[action][problem.status] ?? sayProblem(problem, words).join(": ")), problem !== null);
    if (answer !== null) {
      loading.cancel();
      render(answer);
    }
    return answer !== null;
  }

  return { root, instanceId };
}
