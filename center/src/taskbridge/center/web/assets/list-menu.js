// What may be done with a whole list: a menu next to its filters.

import { Problem, pathOf, search } from "./api.js";
import { element, icon } from "./dom.js";
import { menu } from "./menu.js";
import { sayProblem } from "./states.js";

/** `settings` are items of the page itself. `say` speaks to who listens to the page. */
export function listMenu(api, inbox, words, { settings, say }) {
  const unread = () => (inbox.hasMarks ? inbox.state.items.filter((each) => !each.marks?.read) : []);
  const { root, update, focus } = menu("list-menu", [
    { text: () => (unread().length > 0 ? words.menu.readAll : null), act: () => void inbox.mark(unread(), { read: true }) },
    { text: () => words.menu.export, act: exportList },
    { text: () => words.menu.print, act: () => void setTimeout(print) },
    ...settings,
  ]);
  const { label } = words.menu;
  const opener = element("button", { type: "button", class: "quiet-button list-menu-button", "aria-label": label, title: label, popovertarget: root.id }, icon("more"));

  async function exportList() {
    say(words.loading);
    try {
      const zone = new Intl.DateTimeFormat().resolvedOptions().timeZone;
      const { view, filter } = inbox.state;
      const query = search({ view, ...filter, language: words.tag, time_zone: zone });
      // By a request, and not a link, which would send no token.
      const file = await (await api.open(pathOf(inbox.person, "tasks.csv") + query, { accept: "text/csv" })).blob();
      const link = element("a", { download: `${words.views[view]}.csv` });
      link.href = URL.createObjectURL(file);
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
      say("");
      return null;
    } catch (error) {
      if (!(error instanceof Problem) && !(error instanceof TypeError)) throw error;
      return sayProblem(error, words)[0];
    }
  }

  return {
    parts: [opener, root],
    update,
    /** By key. */
    open() {
      if (!root.matches(":popover-open")) opener.click();
      focus();
    },
  };
}
