// What stands in a list or a pane that has nothing else to show.

import { element, icon } from "./dom.js";

/** `said` is a heading and a sentence; `more` may be a button. */
export function nothingToShow(drawing, [heading, sentence], ...more) {
  return element(
    "div",
    { class: "nothing" },
    element("div", { class: "nothing-drawing" }, icon(drawing)),
    element("p", { class: "nothing-heading" }, heading),
    element("p", { class: "nothing-text" }, sentence),
    ...more,
  );
}

export function problemShown(problem, words, retry) {
  const button = element("button", { type: "button", class: "quiet-button", on: { click: retry } }, words.retry);
  const shown = nothingToShow("warning", sayProblem(problem, words), button);
  shown.setAttribute("role", "alert");
  return shown;
}

/** A heading and a sentence for people; what the service said in detail is for its log. */
export function sayProblem(problem, words) {
  const { problems } = words;
  if (problem?.kind?.endsWith(":unknown-person")) return problems.unknownPerson;
  const known = {
    0: problems.unreachable,
    401: problems.unauthorized,
    403: problems.forbidden,
    429: problems.limited,
    503: problems.unavailable,
  };
  return known[problem?.status] ?? problems.other(problem?.status ?? "?");
}
