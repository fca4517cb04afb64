import { closing, dialog, element } from "./dom.js";

/** The shortcuts. */
export function helpDialog(words) {
  const keys = words.keys.flatMap(([names, meaning]) => [element("dt", {}, ...names.map((name) => element("kbd", {}, name))), element("dd", {}, meaning)]);
  return dialog(words.help, { class: "small", closedby: "any" }, element("dl", { class: "keys" }, ...keys), closing(words));
}
