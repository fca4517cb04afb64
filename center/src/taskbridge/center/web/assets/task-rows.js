// The rows as a listbox: focus stays on the box and the current row moves, so that a row that goes takes no focus along.

import { drawList, element, replace } from "./dom.js";
import { OWN_VIEWS, keyOf } from "./inbox-state.js";
import { avatar, decisionShown, dueShown, hasEnded, statusShown } from "./states.js";

const TELLING = new Set(["created", "copied"]);
const LONG_MS = 3 * 24 * 3600 * 1000;
const PAGE = 8;
let made = 0;

/** A row that is no item leads to more of them: `{more, text}`, of which `more` is the view. */
const idOf = (item) => (item.more === undefined ? keyOf(item) : `more ${item.more}`);

/**
 * Calls `cursor(item)` when another row is the current one, `choose(item, byKeyboard)` when it is clicked or entered,
 * `more(view)`, and `end()` when somebody wants to go on below the last row.
 */
export function taskRows(words, format, inbox, { cursor, choose, more, end }) {
  const fresh = new Set();
  /** What a row was drawn for. */
  const drawn = new WeakMap();
  let items = [];
  let key = null;
  let index = -1;
  const root = element("div", { class: "rows", role: "listbox", tabindex: "0", part: "rows", on: { keydown: onKey, click: onClick } });
  const rows = () => [...root.querySelectorAll(".row")];
  const place = () => items.findIndex((item) => idOf(item) === key);

  /**
   * Exactly these, in this order, reusing what is there: scroll, animation and the current row stay. A group is `{name,
   * heading, items}`; a heading of null is none.
   */
  function render(groups, label) {
    const shown = groups.filter((group) => group.items.length > 0);
    items = shown.flatMap((group) => group.items);
    root.setAttribute("aria-label", label);
    root.hidden = shown.length === 0;
    root.toggleAttribute("data-marks", inbox.hasMarks);
    drawList(root, shown, ({ name }) => name, drawGroup);
    // Where the current row is gone, its details stay, and the keyboard goes on from its place.
    if (place() >= 0) mark(items[place()]);
    else root.removeAttribute("aria-activedescendant");
  }

  function drawGroup({ heading, items: own }, known) {
    const part = known ?? element("div", {}, element("p", { class: "row-group", "aria-hidden": "true" }), element("div", { role: "none" }));
    const [said, list] = part.children;
    part.role = heading === null ? "none" : "group";
    part.ariaLabel = said.textContent = heading;
    said.hidden = heading === null;
    drawList(list, own, idOf, drawRow);
    return part;
  }

  function drawRow(item, known) {
    const isSent = item.more === undefined && inbox.state.sent.has(keyOf(item));
    const before = drawn.get(known);
    if (before?.item === item && before.isSent === isSent) return known;
    const row = known ?? element("div", { class: "row strip", role: "option", id: `tb-row-${(made += 1)}`, part: "row", "aria-selected": "false" });
    row.classList.toggle("more-row", item.more !== undefined);
    row.classList.toggle("unread", isUnread(item));
    replace(row, item.more === undefined ? parts(item) : item.text);
    if (fresh.delete(idOf(item))) {
      row.classList.add("fresh");
      row.addEventListener("animationend", () => row.classList.remove("fresh"), { once: true });
    }
    drawn.set(row, { item, isSent });
    return row;
  }

  /** Make the row of an item current without choosing it; null for none. */
  function mark(item) {
    key = item && idOf(item);
    index = place();
    const all = rows();
    for (const [number, row] of all.entries()) row.setAttribute("aria-selected", String(number === index));
    if (index < 0) root.removeAttribute("aria-activedescendant");
    else root.setAttribute("aria-activedescendant", all[index].id);
  }

  function move(by) {
    if (items.length === 0) return;
    // From the place of a row that is gone, "next" is the row that took it.
    const from = place() < 0 && by > 0 ? index - 1 : index;
    const to = Math.max(0, Math.min(items.length - 1, from + by));
    const item = items[to];
    rows()[to].scrollIntoView({ block: "nearest" });
    if (idOf(item) !== key) {
      mark(item);
      if (item.more === undefined) cursor(item);
    }
    if (to + 5 >= items.length) end();
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: PAGE, PageUp: -PAGE, Home: -Infinity, End: Infinity };
    const isChoice = (event.key === "Enter" || event.key === " ") && place() >= 0;
    if (!isChoice && !(event.key in steps)) return;
    event.preventDefault();
    event.stopPropagation();
    if (isChoice) enter(items[index], true);
    else move(steps[event.key]);
  }

  function onClick(event) {
    const item = drawn.get(event.target.closest(".row"))?.item;
    if (item === undefined) return;
    mark(item);
    enter(item, false);
  }

  function enter(item, byKeyboard) {
    if (item.more !== undefined) more(item.more);
    else choose(item, byKeyboard);
  }

  /** "3 minutes ago" goes on. */
  function tick() {
    for (const [number, row] of rows().entries()) {
      if (items[number].due_at) replace(row, parts(items[number]));
      else if (items[number].more === undefined) row.querySelector("time").textContent = format.ago(items[number].created_at);
    }
  }

  function parts(item) {
    const { originator, process_name: process, step_name: step, title, waits_for: waits } = item;
    const person = waits ?? originator;
    const name = person?.name || person?.user_id || words.unknownPerson;
    const mine = originator?.user_id === inbox.person.userId;
    // All of one's own requests are one's own: whom they wait for is of more use.
    const who = waits ? words.waitsFor(name, waits.others) : item.view === "created" ? null : mine ? words.you : name;
    const waitsLong = item.view === "pending" && !item.due_at && !hasEnded(item) && Date.now() - Date.parse(item.created_at) > LONG_MS;
    return [
      inbox.hasMarks && isUnread(item) ? element("span", { class: "unseen" }, words.marks.unread) : null,
      avatar(person, name),
      element(
        "span",
        { class: "row-main" },
        element("bdi", { class: `row-title cut ${title ? "" : "faint"}` }, title || words.untitled),
        element(
          "span",
          { class: "row-more strip cut note" },
          ...[who, process, step].filter(Boolean).flatMap((each, number) => [
            number > 0 ? element("span", { "aria-hidden": "true" }, "·") : null,
            element("bdi", { class: each === who ? "cut" : "cut row-process" }, each),
          ]),
        ),
      ),
      element(
        "span",
        { class: "row-side note" },
        element("time", { datetime: item.created_at, class: waitsLong ? "long" : "" }, format.ago(item.created_at)),
        inbox.state.sent.has(keyOf(item)) ? statusShown("SENT", words) : (dueShown(item, words, format) ?? itemShown(item, words)),
      ),
    ];
  }

  return {
    ...{ root, render, mark, move, tick },
    get current() {
      return items.find((item) => item.more === undefined && keyOf(item) === key) ?? null;
    },
    /** It came just now: its row, once drawn, slides in. */
    arrived: (item) => fresh.add(keyOf(item)),
  };
}

/** Without marks, what the person did is taken for read until the service says it. */
const isUnread = (item) => item.more === undefined && !(item.marks?.read ?? OWN_VIEWS.has(item.view));

/** How a line was decided or ended, else its status; null where all lines have the same, and it would only be noise. */
export function itemShown(item, words) {
  if (hasEnded(item)) return statusShown("ENDED", words);
  return decisionShown(item, words) ?? (TELLING.has(item.view) ? statusShown(item.status, words) : null);
}
