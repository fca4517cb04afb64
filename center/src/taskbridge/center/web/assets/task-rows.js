// The rows as a listbox: focus stays on the box and the current row moves, so that a row that goes takes no focus along.

import { element, replace } from "./dom.js";
import { OWN_VIEWS, keyOf } from "./inbox.js";
import { avatar, decisionShown, dueShown, hasEnded, statusShown } from "./states.js";

const TELLING = new Set(["created", "copied"]);
const LONG_MS = 3 * 24 * 3600 * 1000;
let made = 0;

/** A row that is no item leads to more of them: `{more}` is the view. */
const idOf = (item) => (item.more === undefined ? keyOf(item) : `more ${item.more}`);

/** Emits "cursor" and "choose" (`item`), "more" (`view`), and "end" when somebody wants to go on below the last row. */
export class TaskRows extends EventTarget {
  constructor(words, format, inbox) {
    super();
    this._words = words;
    this._format = format;
    this._inbox = inbox;
    this._rows = new Map();
    this._groups = new Map();
    this._items = [];
    this._key = null;
    this._index = -1;
    this.root = element("div", {
      class: "rows",
      role: "listbox",
      tabindex: "0",
      part: "rows",
      on: { keydown: (event) => this._onKey(event), click: (event) => this._onClick(event) },
    });
  }

  get current() {
    return this._items.find((item) => item.more === undefined && keyOf(item) === this._key) ?? null;
  }

  /**
   * Show exactly these, in this order, reusing what is there: scroll, animation and the current row stay. A group is
   * `{name, heading, items}`; a heading of null is none.
   */
  render(groups, label) {
    const shown = groups.filter(({ items }) => items.length > 0);
    this._items = shown.flatMap(({ items }) => items);
    this.root.setAttribute("aria-label", label);
    this.root.hidden = shown.length === 0;
    this.root.toggleAttribute("data-marks", this._inbox.hasMarks);
    const wanted = new Set(this._items.map(idOf));
    const parts = shown.map(({ name, heading }) => this._group(name, heading));
    inOrder(this.root, this.root.firstElementChild, parts);
    shown.forEach(({ items }, index) => {
      const part = parts[index];
      inOrder(part, part.querySelector(".row"), items.map((item) => this._row(idOf(item), item)));
    });
    for (const [key, { row }] of this._rows) {
      if (wanted.has(key)) continue;
      row.remove();
      this._rows.delete(key);
    }
    for (const part of [...this.root.children]) if (!parts.includes(part)) part.remove();
    this._keepCurrent();
  }

  _group(name, heading) {
    const known = this._groups.get(name);
    if (known?.heading === heading) return known.part;
    const named = heading === null ? { role: "none" } : { role: "group", "aria-label": heading };
    const part = element("div", named, heading === null ? null : element("p", { class: "row-group", "aria-hidden": "true" }, heading));
    this._groups.set(name, { part, heading });
    return part;
  }

  mark(key) {
    this._key = key;
    this._index = this._items.findIndex((item) => idOf(item) === key);
    for (const [other, { row }] of this._rows) row.setAttribute("aria-selected", String(other === key));
    const row = this._rows.get(key)?.row ?? null;
    if (row === null) this.root.removeAttribute("aria-activedescendant");
    else this.root.setAttribute("aria-activedescendant", row.id);
  }

  move(by) {
    if (this._items.length === 0) return;
    // From the place of a row that is gone, "next" is the row that took it.
    const from = !this._rows.has(this._key) && by > 0 ? this._index - 1 : this._index;
    this._go(Math.max(0, Math.min(this._items.length - 1, from + by)));
    if (this._index + 5 >= this._items.length) this.dispatchEvent(new CustomEvent("end"));
  }

  /** It came just now: its row, once drawn, slides in. */
  arrived(key) {
    this._fresh = (this._fresh ?? new Set()).add(key);
  }

  tick() {
    for (const { row, item } of this._rows.values()) {
      if (item.due_at) replace(row, this._parts(item));
      else if (item.more === undefined) row.querySelector("time").textContent = this._format.ago(item.created_at);
    }
  }

  _go(index) {
    const item = this._items[index];
    const key = idOf(item);
    this._rows.get(key).row.scrollIntoView({ block: "nearest" });
    if (key === this._key) return;
    this.mark(key);
    if (item.more === undefined) this.dispatchEvent(new CustomEvent("cursor", { detail: { item } }));
  }

  /** The current row is gone: it stays the one whose details are shown, and the keyboard goes on from its place. */
  _keepCurrent() {
    if (this._key === null) return;
    const index = this._items.findIndex((item) => idOf(item) === this._key);
    if (index >= 0) this.mark(this._key);
    else this.root.removeAttribute("aria-activedescendant");
  }

  _onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = 8;
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key in steps) {
      event.preventDefault();
      event.stopPropagation();
      if (event.key === "Home" && this._items.length > 0) this._go(0);
      else this.move(steps[event.key]);
    } else if ((event.key === "Enter" || event.key === " ") && this._rows.has(this._key)) {
      event.preventDefault();
      event.stopPropagation();
      this._choose(this._rows.get(this._key).item, true);
    }
  }

  _onClick(event) {
    const row = event.target.closest(".row");
    const found = [...this._rows.values()].find((known) => known.row === row);
    if (!found) return;
    this.mark(idOf(found.item));
    this._choose(found.item, false);
  }

  _choose(item, byKeyboard) {
    if (item.more !== undefined) {
      this.dispatchEvent(new CustomEvent("more", { detail: { view: item.more } }));
      return;
    }
    this.dispatchEvent(new CustomEvent("choose", { detail: { item, byKeyboard } }));
  }

  _row(key, item) {
    const known = this._rows.get(key);
    const sent = item.more === undefined && this._inbox.isSent(item);
    if (known?.item === item && known.sent === sent) return known.row;
    const row = known?.row ?? element("div", { class: "row", role: "option", id: `tb-row-${(made += 1)}`, part: "row", "aria-selected": "false" });
    row.classList.toggle("more-row", item.more !== undefined);
    row.classList.toggle("unread", isUnread(item));
    replace(row, item.more === undefined ? this._parts(item) : item.text);
    if (this._fresh?.delete(key)) {
      row.classList.add("fresh");
      row.addEventListener("animationend", () => row.classList.remove("fresh"), { once: true });
    }
    this._rows.set(key, { row, item, sent });
    return row;
  }

  _waitsLong(item) {
    return item.view === "pending" && !item.due_at && !hasEnded(item) && Date.now() - Date.parse(item.created_at) > LONG_MS;
  }

  _parts(item) {
    const words = this._words;
    const { originator, process_name: process, step_name: step, title, waits_for: waits } = item;
    const person = waits ?? originator;
    const name = person?.name || person?.user_id || words.unknownPerson;
    const mine = originator?.user_id === this._inbox.person.userId;
    // All of one's own requests are one's own: whom they wait for is of more use.
    const who = waits ? words.waitsFor(name, waits.others) : item.view === "created" ? null : mine ? words.you : name;
    return [
      this._inbox.hasMarks && isUnread(item) ? element("span", { class: "unseen" }, words.marks.unread) : null,
      avatar(person, name),
      element(
        "span",
        { class: "row-main" },
        element("bdi", { class: `row-title cut ${title ? "" : "untitled"}` }, title || words.untitled),
        element(
          "span",
          { class: "row-more cut note" },
          ...[who, process, step].filter(Boolean).flatMap((each, index) => [
            index > 0 ? element("span", { class: "dot", "aria-hidden": "true" }, "·") : null,
            element("bdi", { class: each === who ? "cut" : "cut row-process" }, each),
          ]),
        ),
      ),
      element(
        "span",
        { class: "row-side" },
        element("time", { datetime: item.created_at, class: this._waitsLong(item) ? "long" : "" }, this._format.ago(item.created_at)),
        this._inbox.isSent(item) ? statusShown("SENT", words) : (dueShown(item, words, this._format) ?? itemShown(item, words)),
      ),
    ];
  }
}

/** Without marks, what the person did is taken for read until the service says it. */
const isUnread = (item) => item.more === undefined && !(item.marks?.read ?? OWN_VIEWS.has(item.view));

/** These children in this order, from `place` on; others move behind. */
function inOrder(parent, place, children) {
  for (const child of children) {
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
}

/** How a line was decided or ended, else its status; null where all lines have the same, and it would only be noise. */
export function itemShown(item, words) {
  if (hasEnded(item)) return statusShown("ENDED", words);
  return decisionShown(item, words) ?? (TELLING.has(item.view) ? statusShown(item.status, words) : null);
}
