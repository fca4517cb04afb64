// What a person marks about an item: buttons above its details, and the same by key.

import { button, element, icon, redraw } from "./dom.js";
import { keyOf } from "./inbox.js";

function tomorrow() {
  const midnight = new Date();
  midnight.setHours(24, 0, 0, 0);
  return midnight.toISOString();
}

const isHidden = ({ marks }) => marks?.hidden_until != null;

/** By key: what it changes about an item. */
export const CHANGES = {
  p: ({ marks }) => ({ pinned: !marks?.pinned }),
  h: (item) => ({ hidden_until: isHidden(item) ? null : tomorrow() }),
  u: ({ marks }) => ({ read: !marks?.read }),
};

/** Buttons for the item that is shown; empty for none, and where the lists are not the reader's own. */
export class MarkTools {
  constructor(inbox, words) {
    this._inbox = inbox;
    this._words = words;
    this._key = null;
    this.root = element("div", { class: "mark-tools", role: "group", "aria-label": words.marks.label });
  }

  show(item) {
    this._key = item === null ? null : keyOf(item);
    this.refresh();
  }

  refresh() {
    const item = this._inbox.all.find((each) => keyOf(each) === this._key);
    this._item = item;
    const marks = this._inbox.hasMarks && item !== undefined ? (item.marks ?? {}) : null;
    const { marks: said } = this._words;
    const tool = (keep, drawing, text, pressed) => {
      const act = () => this._inbox.mark([this._item], CHANGES[keep](this._item));
      return button(icon(drawing), act, { class: "tool", "aria-pressed": String(pressed), title: text, "aria-label": text, data: { keep } });
    };
    redraw(this.root, marks && [this._key, marks.pinned, isHidden(item), marks.read], () => marks && [
      tool("u", "unread", said.read, Boolean(marks.read)),
      tool("p", "pin", said.pin, Boolean(marks.pinned)),
      tool("h", "later", said.later, isHidden(item)),
    ]);
  }
}
