// The form of the shown instance as its system has it now, which is read when somebody opens it, and what changed.

import { outcome, search } from "./api.js";
import { element } from "./dom.js";
import { labelOf } from "./form-values.js";

/** `drawn` is called when there is something else to show. */
export class CurrentForm {
  constructor(api, drawn) {
    this._api = api;
    this._drawn = drawn;
    this.show(null);
  }

  /** Forget what is known: another instance is shown, or none. */
  show(instanceId) {
    this._id = instanceId;
    this._reading = null;
    /** As the service gives it; null where it is not known. */
    this.found = null;
    /** "off", "reading", "read" or "failed". */
    this.phase = "off";
  }

  /** `outdated`: the digest of values that are known not to be the newest. */
  async read(outdated = null) {
    const id = this._id;
    if (this.phase === "off") this.phase = "reading";
    const path = `/v1/instances/${encodeURIComponent(id)}/form${search({ outdated })}`;
    const reading = (this._reading = outcome(this._api.open(path).then((response) => response.json())));
    const [found] = await reading;
    if (id !== this._id || reading !== this._reading) return;
    this._reading = null;
    // What was read before is still the newest that is known.
    this.found = found ?? this.found;
    this.phase = this.found === null ? "failed" : "read";
    this._drawn();
  }

  /** Wait for a form that is being read, and say whether it is another one than a person has before their eyes; null if another instance is shown then. */
  async isUnseen() {
    const { _id: id, found: seen } = this;
    if (this._reading === null) return false;
    // It may be read again meanwhile.
    while (this._reading !== null && id === this._id) await this._reading;
    if (id !== this._id) return null;
    return seen === null ? (this.found?.changed.length ?? 0) > 0 : seen.digest !== this.found?.digest;
  }

  /** An action was refused because the values are not those that the person saw: read them again. */
  refused(action) {
    if (this.found === null || this._reading !== null || action?.detail !== "changed") return;
    if (Date.parse(action.requested_at) > Date.parse(this.found.read_at)) this.read(this.found.digest);
  }
}

/** What changed since the start, before the place where it is decided; null where nothing did. */
export function changesShown({ found }, labels, { words, format, name }) {
  if (found === null || found.changed.length === 0) return null;
  const said = words.detail;
  const line = ({ field, before, user_id: user, at }) => {
    const values = [element("del", {}, short(before)), " → ", element("ins", {}, short(found.form[field]))];
    const by = [user ? said.changedBy(name(user)) : null, at ? format.time(at) : null].filter(Boolean);
    return element(
      "li",
      { class: "line" },
      element("bdi", { class: "note" }, labelOf(field, labels)),
      element("bdi", {}, ...values),
      ...by.map((each) => element("span", { class: "note" }, element("bdi", {}, each))),
    );
  };
  return element(
    "section",
    { class: "form-changes", "aria-label": said.changedSinceStart },
    element("h3", {}, said.changedSinceStart),
    element("ul", {}, ...found.changed.map(line)),
  );
}

/** Of when the shown values are. `sentAt`: when the event with the older ones happened. */
export function formAge({ phase, found }, sentAt, { words, format }) {
  if (phase === "reading") return element("p", { class: "faint form-age" }, words.detail.formReading);
  const [said, at] = phase === "read" ? [words.detail.formNow, found.read_at] : [words.detail.formSent, sentAt];
  return at ? element("p", { class: "faint form-age" }, said(format.full(at))) : null;
}

const SHORT = 200;

function short(value) {
  const text = value ?? "";
  return text.trim() === "" ? "–" : text.length > SHORT ? `${text.slice(0, SHORT)}…` : text;
}
