// The values of a form as Yida gives them: texts, some of which are lists or tables in JSON, and files.

import { disclosure, element, ownLink, recordsTable } from "./dom.js";

const LONG = 2000;
const FIELD_ID = /^\w+_\w+$/;

/**
 * `given` has the `words` and the `format` of the reader; `labels`: what fields are called, by their ids; `files` by
 * their places; `address(place, number)` of one of them, null where files are opened elsewhere only; and `changed`: the
 * ids of fields that are marked as such.
 */
export function formShown(form, given) {
  const { words } = given;
  const entries = Object.entries(form);
  const filled = entries.filter(([, value]) => !isEmpty(value));
  const empty = entries.filter(([, value]) => isEmpty(value));
  if (entries.length === 0) return element("p", { class: "faint" }, words.detail.noForm);
  const fields = (some) => element("dl", { class: "form-values" }, ...some.flatMap(([name, value]) => field(name, read(value), given, name)));
  if (empty.length === 0) return fields(filled);
  return [fields(filled), disclosure("empty", words.detail.emptyFields(empty.length), fields(empty.map(([name]) => [name, ""])))];
}

function field(name, value, given, place) {
  const label = labelOf(name, given.labels);
  const id = label === name ? {} : { title: name };
  const mark = given.changed.has(place) ? element("span", { class: "form-changed" }, given.words.detail.changed) : null;
  return [element("dt", { class: FIELD_ID.test(label) ? "note mono" : "note", ...id }, element("bdi", {}, label), mark), element("dd", {}, shown(value, given, place))];
}

/** What a field is called; its id where nobody says it. */
export const labelOf = (name, labels) => (Object.hasOwn(labels, name) ? labels[name] : name);

function isEmpty(value) {
  return value === null || value.trim() === "" || value === "[]" || value === "{}";
}

/** JSON that is a list or an object is read; everything else is the text that it is. */
function read(value) {
  if (!/^\s*[[{]/.test(value)) return value;
  try {
    return JSON.parse(value);
  } catch {
    return value;
  }
}

/** `place` of the value in the form, as the service names it: of a field within a table, with the table and the line. */
function shown(value, given, place) {
  if (Object.hasOwn(given.files, place)) return filesShown(given.files[place], given, place);
  if (value === null || value === undefined || value === "") return element("span", { class: "faint" }, "–");
  if (typeof value === "boolean") return value ? given.words.detail.yes : given.words.detail.no;
  if (Array.isArray(value)) {
    if (value.length > 0 && value.every(isRecord)) return table(value, given, place);
    return element("bdi", {}, value.map((part) => (isRecord(part) ? JSON.stringify(part) : String(part))).join("、"));
  }
  if (isRecord(value)) {
    return element("dl", { class: "form-values nested" }, ...Object.entries(value).flatMap(([name, inner]) => field(name, inner, given, `${place}/${name}`)));
  }
  const text = String(value);
  return element("bdi", { class: "form-text" }, text.length > LONG ? `${text.slice(0, LONG)}…` : text);
}

function table(rows, given, place) {
  const names = [...new Set(rows.flatMap(Object.keys))];
  const columns = names.map((name) => [labelOf(name, given.labels), (row) => shown(row[name] ?? null, given, `${place}/${rows.indexOf(row)}/${name}`)]);
  return recordsTable(given.words.detail.form, columns, rows.slice(0, 100));
}

function filesShown(files, { words, format, address }, place) {
  const file = ({ name, size }, number) => {
    const text = element("bdi", {}, name || words.untitled);
    return element("li", { class: "line" }, linked(text, address(place, number), words), size === null ? null : element("span", { class: "note" }, format.bytes(size)));
  };
  return element("ul", { class: "files" }, ...files.map(file));
}

function linked(text, path, words) {
  if (path === null) return text;
  const link = ownLink(path, text, "file");
  Object.assign(link, { target: "_blank", rel: "noopener noreferrer", title: words.detail.openFile });
  link.dataset.keep = path;
  return link;
}

const isRecord = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
