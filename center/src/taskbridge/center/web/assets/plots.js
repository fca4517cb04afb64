// Small plots by hand. Shapes are SVG that stretches; every text is HTML, so that it stays readable at any width.

import { element, replace, svg } from "./dom.js";

const HEIGHT = 100;

/**
 * Bars of one moment each, the series on top of each other: `[{name, kind, values}]`. Their values can be read with the
 * pointer and with the arrow keys; while nobody does, `summary` makes one of them all.
 */
export function plot({ times, series, summary, label, help, format }) {
  const most = Math.max(1, ...times.map((_, index) => series.reduce((sum, { values }) => sum + (values[index] ?? 0), 0)));
  const shapes = svg("svg", { viewBox: `0 0 ${times.length} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  times.forEach((_, index) => {
    let top = HEIGHT;
    for (const { kind, values } of series) {
      const height = ((values[index] ?? 0) / most) * HEIGHT;
      top -= height;
      if (height > 0) shapes.append(svg("rect", { class: `kind-${kind}`, x: index + 0.1, y: top, width: 0.8, height }));
    }
  });
  const cursor = svg("rect", { class: "plot-cursor", y: 0, height: HEIGHT });
  shapes.append(cursor);
  const readout = element("div", { class: "plot-readout line", role: "status" });
  let at = null;
  const show = (index) => {
    at = index === null ? null : Math.max(0, Math.min(times.length - 1, index));
    const values = series.map((each) => key(each, format.number(at === null ? summary(each.values) : each.values[at])));
    replace(readout, at === null ? null : element("b", {}, format.clock(times[at])), values);
    cursor.setAttribute("x", at ?? 0);
    cursor.setAttribute("width", at === null ? 0 : 1);
  };
  show(null);
  const onPointer = (event) => {
    const box = shapes.getBoundingClientRect();
    show(Math.floor(((event.clientX - box.left) / box.width) * times.length));
  };
  const onKey = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by === undefined || times.length === 0) return;
    event.preventDefault();
    show((at ?? times.length) + by);
  };
  const leave = () => show(null);
  const area = element(
    "div",
    {
      ...{ class: "plot-area", tabindex: "0", role: "group", "aria-label": `${label}. ${help}` },
      on: { pointermove: onPointer, pointerleave: leave, blur: leave, keydown: onKey },
    },
    element("span", { class: "note", "aria-hidden": "true" }, format.number(most)),
    shapes,
  );
  const ends = times.length > 0 ? [times[0], times[Math.floor(times.length / 2)], times.at(-1)] : [];
  const axis = element("div", { class: "plot-axis strip note", "aria-hidden": "true" }, ...ends.map((time) => element("span", {}, format.clock(time))));
  return element("figure", { class: "plot" }, readout, area, axis);
}

function key({ kind, name }, value) {
  return element("span", { class: "plot-key strip" }, element("i", { class: `kind-${kind}`, "aria-hidden": "true" }), name, element("b", {}, value));
}

/** Names with numbers, the longest bar the greatest: `[[name, number, kind]]`. */
export function bars(entries, format) {
  const most = Math.max(1, ...entries.map(([, number]) => number));
  const bar = (number, kind) => {
    const made = element("dd", { class: `kind-${kind}` }, format.number(number));
    made.style.setProperty("--share", number / most);
    return made;
  };
  const shown = entries.flatMap(([name, number, kind]) => [element("dt", {}, element("bdi", {}, name)), bar(number, kind)]);
  return element("dl", { class: "bars" }, ...shown);
}
