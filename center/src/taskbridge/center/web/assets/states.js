// What a task or request has come to, and what a list or a pane shows that has nothing else to show.

import { button, element, icon } from "./dom.js";
import { hue, initials } from "./format.js";

const STATUS_ICONS = { SENT: "send", ENDED: "warning", OVERDUE: "warning", PENDING: "clock", COMPLETED: "check", CANCELLED: "cancel", ACTIVE: "send" };
/** Statuses of actions that have not ended. */
export const UNDER_WAY = new Set(["REQUESTED", "SENDING", "ACCEPTED", "UNCLEAR"]);
const SOON_MS = 24 * 3600 * 1000;
const AGAINST = new Set(["disagree", "refuse", "revoked", "terminated"]);

export function statusShown(status, words, text = words.statuses[status] ?? status) {
  return element("span", { class: "status", data: { status }, part: "status" }, icon(STATUS_ICONS[status] ?? "clock"), text);
}

/** A person as two letters, in the colour of their id. */
export function avatar(person, name) {
  const made = element("span", { class: "avatar", "aria-hidden": "true" }, initials(person?.name));
  made.style.setProperty("--hue", `${hue(person?.user_id ?? name)}deg`);
  return made;
}

/** Of a sender's word for how something was decided or ended, ours, and whether it is against; null for one that we do not know. */
export function decisionOf(word, words) {
  const known = (word ?? "").toLowerCase();
  return Object.hasOwn(words.outcomes, known) ? { text: words.outcomes[known], against: AGAINST.has(known) } : null;
}

/** Its instance has ended at its source, and the task is not decided: what is missing is being looked for. */
export const hasEnded = ({ status, finished_at: at }) => status === "PENDING" && Boolean(at);

/** How it was decided or how it ended, where that is known. */
export function decisionShown({ status, outcome, result }, words) {
  const decision = decisionOf(outcome ?? result, words);
  if (decision === null || status === "PENDING") return null;
  return statusShown(decision.against ? "CANCELLED" : status, words, decision.text);
}

/** That a pending task is overdue, or due within a day; null for others. */
export function dueShown({ view, due_at: due }, words, format) {
  const left = view === "pending" ? Date.parse(due ?? "") - Date.now() : NaN;
  if (!(left < SOON_MS)) return null;
  const overdue = left <= 0;
  const shown = statusShown(overdue ? "OVERDUE" : "SOON", words, overdue ? words.due.overdue : words.due.soon(format.clock(due)));
  shown.title = words.due.at(format.full(due));
  return shown;
}

/** `said` is a heading and a sentence; `more` may be a button. */
export function nothingToShow(drawing, [heading, sentence], ...more) {
  return element(
    "div",
    { class: "nothing stack" },
    icon(drawing),
    element("p", { class: "nothing-heading" }, heading),
    element("p", { class: "nothing-text" }, sentence),
    ...more,
  );
}

export function problemShown(problem, words, retry) {
  const shown = nothingToShow("warning", sayProblem(problem, words), button(words.retry, retry));
  shown.setAttribute("role", "alert");
  return shown;
}

/** A line that is read aloud when it changes: what became of something, or why it cannot be done. */
export function statusLine() {
  const root = element("p", { class: "deciding-said", role: "status", "aria-live": "polite" });
  const say = (text, bad = false) => {
    if (root.textContent !== text) root.textContent = text;
    root.toggleAttribute("data-bad", bad);
  };
  return { root, say };
}

/** A heading and a sentence for people; what the service said in detail is for its log. */
export function sayProblem(problem, words) {
  const { problems } = words;
  if (problem?.kind?.endsWith(":unknown-person")) return problems.unknownPerson;
  return problems[problem?.status] ?? problems.other(problem?.status ?? "?");
}
