// What may be done with a whole list: a menu next to its filters.

import { Problem } from "./api.js";
import { element, icon, replace } from "./dom.js";
import { sayProblem } from "./states.js";

/** `settings` are buttons of the page itself. `say` speaks to who listens to the page. */
export function listMenu(api, inbox, words, { settings, say }) {
  const close = () => {
    root.open = false;
  };
  const item = (text, act) => element("li", {}, element("button", { type: "button", on: { click: () => (close(), act()) } }, text));
  const problem = element("p", { class: "sign-in-problem", role: "alert", hidden: true });
  const list = element("ul", {});
  const root = element(
    "details",
    { class: "list-menu", on: { keydown: (event) => onKey(event), focusout: (event) => onFocusOut(event), toggle: () => onToggle() } },
    element("summary", { class: "list-menu-button", "aria-label": words.menu.label, title: words.menu.label }, icon("more")),
    element("div", { class: "list-menu-items" }, list, problem),
  );

  const unread = () => (inbox.hasMarks ? inbox.items.filter((each) => !each.marks?.read) : []);
  const readAll = item(words.menu.readAll, () => inbox.mark(unread(), { read: true }));
  const shown = () => [...list.querySelectorAll(":scope > :not([hidden]) > button:not([hidden])")];

  let byKey = false;

  function onToggle() {
    document[root.open ? "addEventListener" : "removeEventListener"]("pointerdown", onElsewhere);
    if (!root.open) return;
    draw();
    if (byKey) shown()[0].focus();
    byKey = false;
  }

  function draw() {
    problem.hidden = true;
    update();
    replace(
      list,
      readAll,
      element("li", {}, element("button", { type: "button", on: { click: () => exportList() } }, words.menu.export)),
      item(words.menu.print, () => print()),
      ...settings().map((button) => element("li", { on: { click: close } }, button)),
    );
  }

  /** What arrives while the menu is open shows in it; no button is replaced under a pointer. */
  function update() {
    readAll.hidden = unread().length === 0;
  }

  async function exportList() {
    say(words.loading);
    try {
      const zone = new Intl.DateTimeFormat().resolvedOptions().timeZone;
      const file = await api.spreadsheet(inbox.person, { view: inbox.view, ...inbox.filter, language: words.tag, time_zone: zone });
      const link = element("a", { download: `${words.views[inbox.view]}.csv` });
      link.href = URL.createObjectURL(file);
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
      say("");
      close();
    } catch (error) {
      if (!(error instanceof Problem) && !(error instanceof TypeError)) throw error;
      problem.textContent = sayProblem(error, words)[0];
      problem.hidden = false;
    }
  }

  function onKey(event) {
    if (event.key === "Escape" && root.open) {
      event.stopPropagation();
      close();
      root.firstElementChild.focus();
      return;
    }
    const buttons = shown();
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step === undefined || !root.open) return;
    event.preventDefault();
    event.stopPropagation();
    buttons.at((buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length).focus();
  }

  function onFocusOut({ relatedTarget }) {
    // Null in Safari, also when a button of the menu is clicked.
    if (relatedTarget !== null && !root.contains(relatedTarget)) close();
  }

  function onElsewhere({ target }) {
    if (!root.contains(target)) close();
  }

  return {
    root,
    update,
    open() {
      byKey = true;
      root.open = true;
    },
  };
}
