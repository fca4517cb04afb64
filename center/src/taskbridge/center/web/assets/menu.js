// A menu that the browser opens, places and closes: a popover of the button that names it.

import { element, focusByKey } from "./dom.js";

/**
 * `items` are `{text, act, disabled}`: `text()` is null where one has no use now. What `act` resolves with is a sentence
 * about its failure: then the menu stays open. `update` shows what has changed since it opened.
 */
export function menu(id, items) {
  const problem = element("p", { class: "problem", role: "alert", hidden: true });
  const rows = items.map(({ act }) => element("li", {}, element("button", { type: "button", on: { click: () => choose(act) } })));
  const root = element(
    "div",
    { class: "menu", id, popover: "auto", on: { beforetoggle: () => update(), keydown: (event) => onKey(event) } },
    element("ul", {}, ...rows),
    problem,
  );
  const shown = () => rows.filter((row) => !row.hidden).map((row) => row.firstElementChild);

  async function choose(act) {
    problem.hidden = true;
    problem.textContent = (await act()) ?? "";
    problem.hidden = problem.textContent === "";
    if (problem.hidden) root.hidePopover();
  }

  /** No button is replaced under a pointer. */
  function update() {
    for (const [index, { text, disabled }] of items.entries()) {
      const said = text();
      const [button] = rows[index].children;
      rows[index].hidden = said === null;
      button.disabled = disabled?.() ?? false;
      if (button.textContent !== said) button.textContent = said;
    }
  }

  function onKey(event) {
    // It closes the menu, and nothing of the page.
    if (event.key === "Escape") event.stopPropagation();
    focusByKey(event, shown());
  }

  return { root, update, focus: () => shown()[0]?.focus() };
}
