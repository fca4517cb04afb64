// Times, numbers and names as people read them, in the language of the page.

import { element } from "./dom.js";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** Where `Intl` has only the word for this very instant. */
const JUST_NOW = { "zh-CN": "刚刚", en: "just now" };
/** Of seconds, minutes and hours. `Intl` would write "13 sec". */
const UNITS = { "zh-CN": [" 秒", " 分钟", " 小时"], en: [" s", " min", " h"] };

export class Format {
  constructor(language) {
    this.language = language;
    this._relative = new Intl.RelativeTimeFormat(language, { numeric: "auto", style: "short" });
    const day = { month: "short", day: "numeric" };
    const clock = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
    this.clock = timeFormat(language, clock);
    this.day = timeFormat(language, day);
    this._date = timeFormat(language, { ...day, year: "numeric" });
    this.full = timeFormat(language, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });
    this._moment = timeFormat(language, { ...day, ...clock, second: "2-digit" });
    this._number = new Intl.NumberFormat(language);
    this._short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1, roundingMode: "floor" });
    this._percent = new Intl.NumberFormat(language, { style: "percent" });
  }

  number(value) {
    return Number.isFinite(value) ? this._number.format(value) : "–";
  }

  /** Of a share: 100% only where nothing is missing. */
  percent(share) {
    return Number.isFinite(share) ? this._percent.format(Math.floor(share * 100) / 100) : "–";
  }

  /** For a badge: short for any number. */
  count(value) {
    return Number.isFinite(value) ? this._short.format(value).toLowerCase() : "";
  }

  /** "3 minutes ago", "14:05", "3 May": as exact as a list needs it. */
  ago(iso, now = Date.now()) {
    const time = Date.parse(iso ?? "");
    if (Number.isNaN(time)) return "";
    const passed = now - time;
    if (passed < MINUTE && passed > -MINUTE) return JUST_NOW[this.language] ?? this._relative.format(0, "second");
    if (passed > 0 && passed < HOUR) return this._relative.format(-Math.floor(passed / MINUTE), "minute");
    if (new Date(time).toDateString() === new Date(now).toDateString()) return this.clock(iso);
    if (passed > 0 && passed < 300 * DAY) return this.day(iso);
    return this._date(iso);
  }

  /** An element. */
  time(iso) {
    return element("time", { datetime: iso }, this.full(iso));
  }

  /** For a column of a table: the year only where it is another one. */
  moment(iso, now = Date.now()) {
    const isThisYear = new Date(iso).getFullYear() === new Date(now).getFullYear();
    return isThisYear ? this._moment(iso) : this.full(iso);
  }

  bytes(value) {
    if (!Number.isFinite(value)) return "–";
    let size = value;
    let unit = 0;
    for (; size >= 1024 && unit < 4; unit += 1) size /= 1024;
    return `${size < 10 && unit > 0 ? size.toFixed(1) : Math.round(size)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
  }

  seconds(value) {
    if (!Number.isFinite(value)) return "–";
    const [seconds, minutes, hours] = UNITS[this.language] ?? UNITS.en;
    if (value < 10) return value.toFixed(1) + seconds;
    if (value < 120) return Math.round(value) + seconds;
    return value < 7200 ? Math.round(value / 60) + minutes : Math.round(value / 3600) + hours;
  }
}

/** A function that says a time; nothing for none. */
function timeFormat(language, options) {
  const format = new Intl.DateTimeFormat(language, options);
  return (iso) => {
    const time = Date.parse(iso ?? "");
    return Number.isNaN(time) ? "" : format.format(time);
  };
}

/** The names that the service sends with an instance, by user id: `told` are its answers, or null. Its sender's own name wins. */
export function namesIn(originator, ...told) {
  const people = [...told.flatMap((each) => each?.people ?? []), ...(originator?.name ? [originator] : [])];
  return new Map(people.map(({ user_id: id, name }) => [id, name]));
}

/** What stands in somebody's avatar: the given name of a Chinese name, initials of others. */
export function initials(name) {
  const letters = [...(name ?? "").trim()];
  if (letters.length === 0) return "–";
  if (/\p{Script=Han}/u.test(letters.at(-1))) return letters.slice(-2).join("");
  const words = name.trim().split(/\s+/);
  return [...words[0]][0].toUpperCase() + (words.length > 1 ? [...words.at(-1)][0].toUpperCase() : "");
}

/** One of eight angles of colour, the same for the same person everywhere. */
export function hue(text) {
  let hash = 0;
  for (const letter of text ?? "") hash = (hash * 31 + letter.codePointAt(0)) >>> 0;
  return (260 + (hash % 8) * 45) % 360;
}
