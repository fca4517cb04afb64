// The values of a form as Yida gives them: texts, some of which are lists or tables in JSON.

import { disclosure, element, recordsTable } from "./dom.js";

const LONG = 2000;
const FIELD_ID = /^\w+_\w+$/;

/** `labels`: what fields are called, by their ids; one that has none is shown by its id. */
export function formShown(form, labels, words) {
  const entries = Object.entries(form);
  const filled = entries.filter(([, value]) => !isEmpty(value));
  const empty = entries.filter(([, value]) => isEmpty(value));
  if (entries.length === 0) return element("p", { class: "faint" }, words.detail.noForm);
  const fields = (given) => element("dl", { class: "form-values" }, ...given.flatMap(([name, value]) => field(name, read(value), labels, words)));
  if (empty.length === 0) return fields(filled);
  return [fields(filled), disclosure("empty", words.detail.emptyFields(empty.length), fields(empty.map(([name]) => [name, ""])))];
}

function field(name, value, labels, words) {
  const label = labelOf(name, labels);
  const id = label === name ? {} : { title: name };
  return [element("dt", { class: FIELD_ID.test(label) ? "note mono" : "note", ...id }, element("bdi", {}, label)), element("dd", {}, shown(value, labels, words))];
}

const labelOf = (name, labels) => (Object.hasOwn(labels, name) ? labels[name] : name);

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

function shown(value, labels, words) {
  if (value === null || value === undefined || value === "") return element("span", { class: "faint" }, "–");
  if (typeof value === "boolean") return value ? words.detail.yes : words.detail.no;
  if (Array.isArray(value)) {
    if (value.length > 0 && value.every(isRecord)) return table(value, labels, words);
    return element("bdi", {}, value.map((part) => (isRecord(part) ? JSON.stringify(part) : String(part))).join("、"));
  }
  if (isRecord(value)) {
    return element("dl", { class: "form-values nested" }, ...Object.entries(value).flatMap(([name, inner]) => field(name, inner, labels, words)));
  }
  const text = String(value);
  return element("bdi", { class: "form-text" }, text.length > LONG ? `${text.slice(0, LONG)}…` : text);
}

function table(rows, labels, words) {
  const names = [...new Set(rows.flatMap(Object.keys))];
  const columns = names.map((name) => [labelOf(name, labels), (row) => shown(row[name] ?? null, labels, words)]);
  return recordsTable(words.detail.form, columns, rows.slice(0, 100));
}

const isRecord = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
