// What a person marks about an item: buttons above its details, and the same by key.

import { button, element, icon, redraw } from "./dom.js";
import { allOf, keyOf } from "./inbox-state.js";

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
export function markTools(inbox, words) {
  let key = null;
  const root = element("div", { class: "mark-tools strip", role: "group", "aria-label": words.marks.label });
  const current = () => allOf(inbox.state).find((each) => keyOf(each) === key);

  function refresh() {
    const item = current();
    const marks = inbox.hasMarks && item !== undefined ? (item.marks ?? {}) : null;
    const tool = (keep, drawing, text, pressed) => {
      const act = () => inbox.mark([current()], CHANGES[keep](current()));
      return button(icon(drawing), act, { class: "tool", "aria-pressed": String(pressed), title: text, "aria-label": text, data: { keep } });
    };
    redraw(root, marks && [key, marks.pinned, isHidden(item), marks.read], () => marks && [
      tool("u", "unread", words.marks.read, Boolean(marks.read)),
      tool("p", "pin", words.marks.pin, Boolean(marks.pinned)),
      tool("h", "clock", words.marks.later, isHidden(item)),
    ]);
  }

  inbox.addEventListener("change", refresh);
  const show = (item) => {
    key = item === null ? null : keyOf(item);
    refresh();
  };
  return { root, show };
}
