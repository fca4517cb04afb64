// The only place where elements are made. Every outside value becomes text: nothing here reads markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element. `on` holds listeners, `data` the dataset; null children and false attributes are left out. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  const { on = {}, data = {}, ...attributes } = properties;
  for (const [name, value] of Object.entries(attributes)) setAttribute(made, name, value);
  for (const [name, value] of Object.entries(data)) made.dataset[name] = value;
  for (const [name, listener] of Object.entries(on)) made.addEventListener(name, listener);
  append(made, children);
  return made;
}

export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) setAttribute(made, name, value);
  append(made, children);
  return made;
}

/** A link to an address from outside, or null when it is not http or https. */
export function outsideLink(url, properties, ...children) {
  const safe = webAddress(url);
  if (safe === null) return null;
  const made = element("a", { ...properties, target: "_blank", rel: "noopener noreferrer" }, ...children);
  made.href = safe;
  return made;
}

/** The address in the browser's own spelling when it is http or https without credentials in it, else null. */
export function webAddress(url) {
  const parsed = URL.canParse(url) ? new URL(url) : null;
  const isWeb = parsed?.protocol === "http:" || parsed?.protocol === "https:";
  return isWeb && parsed.username === "" && parsed.password === "" ? parsed.href : null;
}

/**
 * New children. The keyboard stays on the one with the same `data-keep`, where it is there again, and who has scrolled a
 * table to its last columns is not thrown back to the first.
 */
export function replace(parent, ...children) {
  const focused = parent.contains(document.activeElement) ? document.activeElement.dataset.keep : undefined;
  const tables = () => [...parent.querySelectorAll(".records")];
  const scrolled = tables().map(({ scrollLeft, scrollTop }) => [scrollLeft, scrollTop]);
  parent.replaceChildren();
  append(parent, children);
  for (const [number, table] of tables().entries()) table.scrollTo(...(scrolled[number] ?? [0, 0]));
  if (focused !== undefined) parent.querySelector(`[data-keep="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

const drawn = new WeakMap();

/** As `replace`, with what `children` gives, where `key` is another one than the last time. */
export function redraw(parent, key, children) {
  const text = JSON.stringify(key);
  if (drawn.get(parent) === text) return;
  drawn.set(parent, text);
  replace(parent, children());
}

const lists = new WeakMap();

/** Elements for these items, in their order: `draw` makes one, or returns the one that it is given for the same key. */
export function drawList(parent, items, keyOf, draw) {
  const before = lists.get(parent) ?? new Map();
  const now = new Map(items.map((item) => [keyOf(item), draw(item, before.get(keyOf(item)))]));
  lists.set(parent, now);
  for (const [key, made] of before) if (!now.has(key)) made.remove();
  let place = parent.firstElementChild;
  for (const made of now.values()) {
    if (made === place) place = place.nextElementSibling;
    else parent.insertBefore(made, place);
  }
}

/** Moves the focus to another one of these by an arrow key, Home or End, and returns it; undefined for other keys. */
export function focusByKey(event, all, [back, on] = ["ArrowUp", "ArrowDown"]) {
  const at = all.indexOf(event.target);
  const to = { [back]: at - 1, [on]: at + 1, Home: 0, End: -1 }[event.key];
  if (to === undefined) return undefined;
  event.preventDefault();
  event.stopPropagation();
  const next = all.at(to % all.length);
  next.focus();
  return next;
}

function append(parent, children) {
  for (const child of children.flat(2)) {
    if (child !== null && child !== undefined && child !== false) parent.append(child);
  }
}

const FORBIDDEN = new Set(["href", "src", "srcdoc", "style", "action", "formaction", "xlink:href"]);

function setAttribute(made, name, value) {
  if (FORBIDDEN.has(name) || name.startsWith("on")) throw new TypeError(`${name} is not set this way`);
  if (value === null || value === undefined || value === false) return;
  made.setAttribute(name, value === true ? "" : value);
}

/** A link to a page of ours. */
export function ownLink(path, text, kind = "tool") {
  const link = element("a", { class: kind }, text);
  link.href = path;
  return link;
}

export function button(text, click, properties = {}) {
  return element("button", { type: "button", class: "quiet-button", ...properties, on: { click } }, text);
}

/** Of a field whose text the browser neither completes nor corrects. */
export const UNTOUCHED = { autocomplete: "off", autocapitalize: "none", spellcheck: "false" };

export function labelled(text, field, properties = {}) {
  return element("label", properties, element("span", {}, text), field);
}

/** Offer these `[value, text]` in a select; what was chosen stays chosen, where it is still offered. */
export function offer(select, choices, chosen = select.value) {
  redraw(select, choices, () => choices.map(([value, text]) => element("option", { value }, text)));
  select.value = choices.some(([value]) => value === chosen) ? chosen : (choices[0]?.[0] ?? "");
  return select;
}

const opened = new Set();

/** What is shown on request. It stays open when it is drawn again. */
export function disclosure(name, summary, ...content) {
  const toggle = () => (made.open ? opened.add(name) : opened.delete(name));
  const heading = element("summary", { class: "note", data: { keep: name } }, summary);
  const made = element("details", { class: name, open: opened.has(name), on: { toggle } }, heading, ...content);
  return made;
}

/** A dialog that the browser keeps the focus in. */
export function dialog(title, properties, ...children) {
  return element("dialog", { "aria-label": title, ...properties }, element("h2", {}, title), ...children);
}

/** A dialog that is shown at once, and gone when it is closed. */
export function openDialog(title, properties, ...children) {
  const made = dialog(title, properties, ...children);
  made.addEventListener("close", () => made.remove());
  document.body.append(made);
  made.showModal();
  return made;
}

/** Resolves with whether a person confirms what cannot be taken back: `act` names it, and the harmless way has the focus. */
export function sure(words, question, about, consequence, act) {
  const { promise, resolve } = Promise.withResolvers();
  const choice = (kind, text, value) => element("button", { class: kind, value, autofocus: value === "" }, text);
  const asked = openDialog(
    question,
    { class: "small", on: { close: () => resolve(asked.returnValue !== "") } },
    about,
    element("p", { class: "faint" }, consequence),
    element("form", { method: "dialog", class: "line" }, choice("quiet-button", words.cancel, ""), choice("primary-button", act, "yes")),
  );
  return promise;
}

/** Closes the dialog that it is in. */
export const closing = (words) => element("form", { method: "dialog" }, element("button", { class: "quiet-button" }, words.close));

/**
 * A table of records, which scrolls within its place, by the keyboard too. `columns` are `[heading, (row) => text or
 * element]`, and `"long"` where words may be, or `"row"` for what a row is about.
 */
export function recordsTable(label, columns, rows) {
  const headings = columns.map(([heading]) => element("th", { scope: "col" }, heading));
  const cell = (row) => ([heading, shown, kind = ""]) =>
    kind === "row"
      ? element("th", { scope: "row" }, element("bdi", {}, shown(row)))
      : element("td", { class: kind, data: { heading } }, element("bdi", {}, shown(row) ?? "–"));
  const body = rows.map((row) => element("tr", {}, ...columns.map(cell(row))));
  return element(
    "div",
    { class: "records", tabindex: "0", role: "group", "aria-label": label },
    element("table", {}, element("thead", {}, element("tr", {}, ...headings)), element("tbody", {}, ...body)),
  );
}

/** Labels with what is known of them; those of which nothing is known are left out. */
export function facts(...entries) {
  const known = entries.filter(([, shown]) => shown !== null);
  return element("dl", { class: "facts" }, ...known.flatMap(([label, shown]) => [element("dt", { class: "note" }, label), element("dd", { class: "line" }, shown)]));
}

const ICONS = {
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14Zm5.2 12.2L21 21",
  external: "M13 5h6v6M19 5l-9 9M10 6H6a1 1 0 0 0-1 1v11a1 1 0 0 0 1 1h11a1 1 0 0 0 1-1v-4",
  back: "M15 5l-7 7 7 7",
  check: "M5 12.5l4.5 4.5L19 7.5",
  clock: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16Zm0 3.5V12l3 2",
  cancel: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16ZM6.5 6.5l11 11",
  plus: "M12 5v14M5 12h14",
  copy: "M9 9h10v10H9zM5 15V5h10",
  send: "M4 12l16-7-5 15-3.5-6.5L4 12Z",
  trash: "M5 7h14M10 7V5h4v2M7 7l1 12h8l1-12",
  pin: "M9 4h6l-1 6 4 4H6l4-4-1-6ZM12 14v6",
  unread: "M4 6h16v12H4zM4 7l8 6 8-6",
  more: "M5 11h2v2H5ZM11 11h2v2h-2ZM17 11h2v2h-2Z",
  inbox: "M4 13l3-8h10l3 8v6H4v-6Zm0 0h4.5l1 2.5h5l1-2.5H20",
  person: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8ZM5 20c.8-3.6 3.6-5.5 7-5.5s6.2 1.9 7 5.5",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8ZM12 2.5v2M12 19.5v2M4.2 4.2l1.4 1.4M18.4 18.4l1.4 1.4M2.5 12h2M19.5 12h2M4.2 19.8l1.4-1.4M18.4 5.6l1.4-1.4",
  moon: "M19 14.5A7.5 7.5 0 0 1 9.5 5a7.5 7.5 0 1 0 9.5 9.5Z",
  auto: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16ZM12 4v16M12 8h5M12 12h8M12 16h5",
  warning: "M12 4.5l8.5 15h-17l8.5-15ZM12 10v4.5M12 17v.1",
};

/** A drawing for the eye only; what it says must also be there as text. */
export function icon(name) {
  const path = svg("path", { d: ICONS[name] });
  return svg("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true", focusable: "false" }, path);
}

/** `action` after `ms` without another call. */
export function debounced(action, ms) {
  let timer;
  const later = (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...given), ms);
  };
  later.cancel = () => clearTimeout(timer);
  return later;
}
