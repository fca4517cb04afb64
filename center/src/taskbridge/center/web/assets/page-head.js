// What all pages have: the name, the way to other pages, language and appearance at the top, and panels below.

import { element, icon, ownLink, replace } from "./dom.js";
import { LANGUAGES, chooseLanguage } from "./words.js";
import { setTheme, theme } from "./preferences.js";

const THEMES = ["auto", "light", "dark"];
const THEME_ICONS = { auto: "auto", light: "sun", dark: "moon" };

/** `onLanguage(words)` draws the page again; `own` are elements of the page itself. */
export function pageHead(words, { title, other = [], onLanguage, own = [] }) {
  return element(
    "header",
    { class: "page-head" },
    element("div", { class: "brand" }, element("h1", {}, title)),
    ...own,
    element("nav", { class: "page-tools", "aria-label": words.product }, ...other, languageButton(words, onLanguage), themeButton(words)),
  );
}

/** A page of panels: `content` below the page's head. */
export function panelPage(root, words, { title, other = [], ...head }, ...content) {
  document.title = `${title} · taskbridge`;
  const others = [...other, ownLink("/", words.tasks)];
  replace(root, pageHead(words, { title, other: others, ...head }), element("main", { class: "operation" }, ...content));
}

export function panel(name, heading, hint, ...content) {
  return element(
    "section",
    { class: `panel ${name}` },
    element("header", {}, element("h2", {}, heading), hint ? element("p", { class: "faint" }, hint) : null),
    ...content,
  );
}

/** In place of a table that would be empty. */
export const noneShown = (sentence) => element("p", { class: "panel-none line" }, icon("check"), sentence);

/**
 * `load` now, `ms` after each end, and when somebody looks at the page again. Nobody reads a hidden one. Gives what
 * loads at once.
 */
export function whileVisible(load, ms) {
  let next;
  const again = async () => {
    clearTimeout(next);
    await load();
    clearTimeout(next);
    if (document.visibilityState === "visible") next = setTimeout(again, ms);
  };
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && again());
  again();
  return again;
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
  const sign = element("div", { class: "live", role: "status" }, text);
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
