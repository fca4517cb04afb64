// A page that the browser had kept in memory may show another person's tasks: it is loaded again.
addEventListener("pageshow", ({ persisted }) => persisted && location.reload());

// Runs before the first paint, so that a remembered theme or language does not flash: see preferences.js.
(() => {
  const remembered = (name) => {
    try {
      return localStorage.getItem(`taskbridge.${name}`);
    } catch {
      return null; // Storage may be forbidden; then the browser's own settings hold.
    }
  };
  const root = document.documentElement;
  const theme = remembered("theme");
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  const language = remembered("language") ?? navigator.language ?? "en";
  root.lang = language.toLowerCase().startsWith("zh") ? "zh-CN" : "en";
})();
