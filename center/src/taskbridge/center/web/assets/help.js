import { element, icon } from "./dom.js";

/** The shortcuts, in a dialog that the browser keeps the focus in. */
export function helpDialog(words) {
  const dialog = element(
    "dialog",
    { class: "help", "aria-labelledby": "help-title" },
    element(
      "header",
      {},
      element("h2", { id: "help-title" }, words.help),
      element("button", { type: "button", class: "tool", "aria-label": words.close, on: { click: () => dialog.close() } }, icon("close")),
    ),
    element("dl", {}, ...words.keys.flatMap(([keys, meaning]) => [element("dt", {}, ...keys.map((key) => element("kbd", {}, key))), element("dd", {}, meaning)])),
  );
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  return dialog;
}
