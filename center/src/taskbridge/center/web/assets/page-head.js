// What all pages have: the name, the way to other pages, language and appearance at the top, and panels below.

import { button, element, icon, ownLink, replace } from "./dom.js";
import { rememberLanguage, setTheme, theme } from "./preferences.js";

const THEMES = ["auto", "light", "dark"];
const THEME_ICONS = { auto: "auto", light: "sun", dark: "moon" };

/** `own` are elements of the page itself. `typed` gives what a page in another language shall have in `history.state`. */
export function pageHead(words, { title, other = [], own = [], typed = () => null }) {
  return element(
    "header",
    { class: "page-head strip" },
    element("div", { class: "brand strip" }, element("h1", { class: "cut" }, title)),
    ...own,
    element("nav", { class: "page-tools strip", "aria-label": words.product }, ...other, languageButton(words, typed), themeButton(words)),
  );
}

/** A page of panels: `content` below the page's head. */
export function panelPage(root, words, { title, other = [], ...head }, ...content) {
  document.title = `${title} · taskbridge`;
  const others = [...other, ownLink("/", words.product)];
  replace(root, pageHead(words, { title, other: others, ...head }), element("main", { class: "operation" }, ...content));
}

export const panel = (name, ...content) => element("section", { class: `panel ${name}` }, ...panelContent(...content));

export function panelContent(heading, hint, ...content) {
  return [element("header", { class: "line" }, element("h2", {}, heading), hint ? element("p", { class: "note" }, hint) : null), ...content];
}

/** In place of a table that would be empty. */
export const noneShown = (sentence) => element("p", { class: "panel-none faint line" }, icon("check"), sentence);

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

/** The page is loaded again: its address says what it shows, and its state what was typed. */
function languageButton(words, typed) {
  const change = async () => {
    if (!(await isThere())) return;
    await rememberLanguage(words.tag === "en" ? "zh-CN" : "en");
    history.replaceState(typed(), "");
    location.reload();
  };
  return button(words.other, change, { class: "tool", "aria-label": words.otherLabel });
}

/** Without the service, the browser's error page would take the place of all pages but that of the service worker. */
async function isThere() {
  if (location.pathname === "/" && navigator.serviceWorker?.controller) return true;
  return (await fetch(location.pathname, { redirect: "manual" }).catch(() => null))?.status < 500;
}

function themeButton(words) {
  const made = button("", () => (setTheme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]), show()), { class: "tool" });
  const show = () => {
    made.ariaLabel = made.title = words.theme[theme()];
    replace(made, icon(THEME_ICONS[theme()]));
  };
  show();
  return made;
}

/** As it stands, where somebody cut a link in the middle of a character. */
export function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** A quiet word on whether what is shown is live. */
export function liveSign(words) {
  const text = element("span", { class: "live-text" });
  const sign = element("div", { class: "live strip note", role: "status" }, text);
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
