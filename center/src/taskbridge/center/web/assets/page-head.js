// What both pages have at the top: the name, the way to the other page, language and appearance.

import { element, icon, replace } from "./dom.js";
import { LANGUAGES, chooseLanguage } from "./words.js";
import { setTheme, theme } from "./preferences.js";

const THEMES = ["auto", "light", "dark"];
const THEME_ICONS = { auto: "auto", light: "sun", dark: "moon" };

/** `onLanguage(words)` draws the page again; `own` are elements of the page itself. */
export function pageHead(words, { title, other = null, onLanguage, own = [] }) {
  return element(
    "header",
    { class: "page-head" },
    element("div", { class: "brand" }, element("span", { class: "mark", "aria-hidden": "true" }), element("h1", {}, title)),
    ...own,
    element("nav", { class: "page-tools", "aria-label": words.product }, ...[other].flat(), languageButton(words, onLanguage), themeButton(words)),
  );
}

/** A link to a page of ours. */
export function ownLink(path, text) {
  const link = element("a", { class: "tool" }, text);
  link.href = path;
  return link;
}

function languageButton(words, onLanguage) {
  const next = Object.values(LANGUAGES).find((other) => other !== words);
  const button = element("button", { type: "button", class: "tool language", "aria-label": words.otherLabel }, words.other);
  button.addEventListener("click", () => {
    chooseLanguage(next);
    onLanguage(next);
    document.querySelector(".language")?.focus();
  });
  return button;
}

function themeButton(words) {
  const button = element("button", { type: "button", class: "tool theme" });
  const show = () => {
    button.setAttribute("aria-label", words.theme[theme()]);
    button.title = words.theme[theme()];
    replace(button, icon(THEME_ICONS[theme()]));
  };
  button.addEventListener("click", () => {
    setTheme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]);
    show();
  });
  show();
  return button;
}

/** A quiet word on whether what is shown is live. */
export function liveSign(words) {
  const text = element("span", { class: "live-text" });
  const sign = element("div", { class: "live", role: "status" }, element("span", { class: "live-dot", "aria-hidden": "true" }), text);
  return {
    root: sign,
    show(state) {
      const said = state !== "refused" && !navigator.onLine ? "offline" : state;
      if (sign.dataset.state === said) return;
      sign.dataset.state = said;
      text.textContent = words[said];
    },
  };
}
