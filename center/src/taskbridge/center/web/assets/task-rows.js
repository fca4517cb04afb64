// The rows as a listbox: focus stays on the box and the current row moves, so that a row that goes takes no focus along.

import { element, replace } from "./dom.js";
import { hue, initials } from "./format.js";
import { keyOf } from "./inbox.js";
import { decisionShown, dueShown, statusShown } from "./states.js";

const TELLING = new Set(["created", "copied"]);
const LONG_MS = 3 * 24 * 3600 * 1000;
let made = 0;

/** Emits "cursor" and "choose" (`item`), and "end" when somebody wants to go on below the last row. */
export class TaskRows extends EventTarget {
  constructor(words, format, inbox) {
    super();
    this._words = words;
    this._format = format;
    this._inbox = inbox;
    this._rows = new Map();
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
    return this._items.find((item) => keyOf(item) === this._key) ?? null;
  }

  /** Show exactly these, in this order, reusing what is there: scroll, animation and the current row stay. */
  render(items, label) {
    this._items = items;
    this.root.setAttribute("aria-label", label);
    this.root.hidden = items.length === 0;
    const wanted = new Set();
    let place = this.root.firstElementChild;
    for (const item of items) {
      const key = keyOf(item);
      wanted.add(key);
      const row = this._row(key, item);
      if (row === place) place = place.nextElementSibling;
      else this.root.insertBefore(row, place);
    }
    for (const [key, { row }] of this._rows) {
      if (wanted.has(key)) continue;
      row.remove();
      this._rows.delete(key);
    }
    this._keepCurrent();
  }

  mark(key) {
    this._key = key;
    this._index = this._items.findIndex((item) => keyOf(item) === key);
    for (const [other, { row }] of this._rows) row.setAttribute("aria-selected", String(other === key));
    const row = this._rows.get(key)?.row ?? null;
    if (row === null) this.root.removeAttribute("aria-activedescendant");
    else this.root.setAttribute("aria-activedescendant", row.id);
  }

  move(by) {
    if (this._items.length === 0) return;
    // From the place of a row that is gone, "next" is the row that took it.
    const from = this.current === null && by > 0 ? this._index - 1 : this._index;
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
      else row.querySelector("time").textContent = this._format.ago(item.created_at);
    }
  }

  _go(index) {
    const item = this._items[index];
    const key = keyOf(item);
    this._rows.get(key).row.scrollIntoView({ block: "nearest" });
    if (key === this._key) return;
    this.mark(key);
    this.dispatchEvent(new CustomEvent("cursor", { detail: { item } }));
  }

  /** The current row is gone: it stays the one whose details are shown, and the keyboard goes on from its place. */
  _keepCurrent() {
    if (this._key === null) return;
    const index = this._items.findIndex((item) => keyOf(item) === this._key);
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
    } else if ((event.key === "Enter" || event.key === " ") && this.current !== null) {
      event.preventDefault();
      event.stopPropagation();
      this._choose(this.current, true);
    }
  }

  _onClick(event) {
    const row = event.target.closest(".row");
    const found = [...this._rows.values()].find((known) => known.row === row);
    if (!found) return;
    this.mark(keyOf(found.item));
    this._choose(found.item, false);
  }

  _choose(item, byKeyboard) {
    this.dispatchEvent(new CustomEvent("choose", { detail: { item, byKeyboard } }));
  }

  _row(key, item) {
    const known = this._rows.get(key);
    if (known?.item === item) return known.row;
    const row = known?.row ?? element("div", { class: "row", role: "option", id: `tb-row-${(made += 1)}`, part: "row", "aria-selected": "false" });
    replace(row, this._parts(item));
    if (this._fresh?.delete(key)) {
      row.classList.add("fresh");
      row.addEventListener("animationend", () => row.classList.remove("fresh"), { once: true });
    }
    this._rows.set(key, { row, item });
    return row;
  }

  _waitsLong(item) {
    return item.view === "pending" && !item.due_at && Date.now() - Date.parse(item.created_at) > LONG_MS;
  }

  _parts(item) {
    const words = this._words;
    const { originator, process_name: process, title } = item;
    const name = originator?.name || originator?.user_id || words.unknownPerson;
    const mine = originator?.user_id === this._inbox.person.userId;
    return [
      element("span", { class: "avatar", "aria-hidden": "true", data: { hue: hue(originator?.user_id ?? name) } }, initials(originator?.name)),
      element(
        "span",
        { class: "row-main" },
        element("bdi", { class: title ? "row-title" : "row-title untitled" }, title || words.untitled),
        element(
          "span",
          { class: "row-more" },
          element("bdi", {}, mine ? words.you : name),
          process ? element("span", { class: "dot", "aria-hidden": "true" }, "·") : null,
          process ? element("bdi", { class: "row-process" }, process) : null,
        ),
      ),
      element(
        "span",
        { class: "row-side" },
        element("time", { datetime: item.created_at, class: this._waitsLong(item) ? "long" : "" }, this._format.ago(item.created_at)),
        dueShown(item, words, this._format) ?? itemShown(item, words),
      ),
    ];
  }
}

/** How a line was decided or ended, else its status; null where all lines have the same, and it would only be noise. */
export function itemShown(item, words) {
  return decisionShown(item, words) ?? (TELLING.has(item.view) ? statusShown(item.status, words) : null);
}
