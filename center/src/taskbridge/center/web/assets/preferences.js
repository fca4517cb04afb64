// What a person chose, remembered where the browser allows it, and by the service for people who sign in.

import { quietly } from "./api.js";

const PREFIX = "taskbridge.";

function stored(storage, name) {
  try {
    return globalThis[storage].getItem(PREFIX + name);
  } catch {
    return null;
  }
}

function store(storage, name, value) {
  try {
    if (value === null) globalThis[storage].removeItem(PREFIX + name);
    else globalThis[storage].setItem(PREFIX + name, value);
  } catch {
    // A private window: the choice holds until the page is closed.
  }
}

export const remember = (name, value) => store("localStorage", name, value);
export const remembered = (name) => stored("localStorage", name);

/** For secrets: gone with the tab. */
export const keepForTab = (name, value) => store("sessionStorage", name, value);
export const keptForTab = (name) => stored("sessionStorage", name);

/** How what is chosen is stored for the person; null for nobody who signed in. */
let save = null;

/**
 * What a signed-in person chose, in this browser or in another, counts from now on. Stored in this browser too: the
 * next time, it is there before the first paint.
 */
export function followPerson(api, { preferences, as_of: asOf }) {
  save = null;
  if (!preferences) return;
  const { language, theme: chosen, notifications } = preferences;
  if (asOf === undefined) {
    if (language) rememberLanguage(language);
    if (chosen) setTheme(chosen);
    if (notifications !== null) setNotifies(notifications);
  }
  // Where that fails, it holds in this browser anyway.
  save = () => quietly(api.send("PUT", "/v1/me/preferences", { language: remembered("language"), theme: theme(), notifications: notifies() }));
}

/** Resolves once the service has it too. */
export function rememberLanguage(tag) {
  remember("language", tag);
  document.documentElement.lang = tag;
  return save?.();
}

/** Whether new tasks are to be shown by the browser. */
export const notifies = () => remembered("notifications") === "on";

export function setNotifies(value) {
  remember("notifications", value ? "on" : null);
  save?.();
}

/** "auto", "light" or "dark". */
export function theme() {
  const value = remembered("theme");
  return value === "light" || value === "dark" ? value : "auto";
}

export function setTheme(value) {
  remember("theme", value === "auto" ? null : value);
  if (value === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = value;
  save?.();
}
