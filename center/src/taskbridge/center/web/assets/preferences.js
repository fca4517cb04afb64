// What a person chose, remembered where the browser allows it.

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

/** "auto", "light" or "dark". */
export function theme() {
  const value = remembered("theme");
  return value === "light" || value === "dark" ? value : "auto";
}

export function setTheme(value) {
  remember("theme", value === "auto" ? null : value);
  if (value === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = value;
}
