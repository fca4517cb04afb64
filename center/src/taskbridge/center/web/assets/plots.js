// Small plots by hand. Shapes are SVG that stretches; every text is HTML, so that it stays readable at any width.

import { element, replace, svg } from "./dom.js";

const HEIGHT = 100;

/** Bars of one minute each, the series on top of each other. `series`: `[{name, kind, values}]`. */
export function stackedBars({ times, series, label, help, format }) {
  const totals = times.map((_, index) => series.reduce((sum, { values }) => sum + (values[index] ?? 0), 0));
  const most = Math.max(1, ...totals);
  const bars = svg("svg", { viewBox: `0 0 ${times.length} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  times.forEach((_, index) => {
    let top = HEIGHT;
    for (const { kind, values } of series) {
      const height = ((values[index] ?? 0) / most) * HEIGHT;
      top -= height;
      if (height > 0) bars.append(svg("rect", { class: `kind-${kind}`, x: index + 0.1, y: top, width: 0.8, height }));
    }
  });
  const say = (index) => [
    element("b", {}, format.clock(times[index])),
    ...series.map(({ name, kind, values }) => key(kind, name, format.number(values[index]))),
  ];
  const legend = series.map(({ name, kind, values }) => key(kind, name, format.number(values.reduce((sum, value) => sum + value, 0))));
  return readable({ shapes: bars, times, most, label, help, format, say, legend });
}

/** One line with the area beneath. */
export function line({ times, values, label, help, format, kind }) {
  const most = Math.max(1, ...values);
  const x = (index) => (times.length < 2 ? 0 : index / (times.length - 1)) * 100;
  const y = (value) => HEIGHT - (value / most) * (HEIGHT - 3) - 1.5;
  const points = values.map((value, index) => `${x(index).toFixed(2)} ${y(value).toFixed(2)}`);
  const shapes = svg(
    "svg",
    { viewBox: `0 0 100 ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    points.length > 0 ? svg("path", { class: `area kind-${kind}`, d: `M0 ${HEIGHT}L${points.join("L")}L100 ${HEIGHT}Z` }) : null,
    points.length > 0 ? svg("path", { class: `stroke kind-${kind}`, d: `M${points.join("L")}`, "vector-effect": "non-scaling-stroke" }) : null,
  );
  const say = (index) => [element("b", {}, format.clock(times[index])), element("span", {}, format.number(Number(values[index])))];
  const legend = [element("span", {}, format.number(Number(values.at(-1) ?? 0)))];
  return readable({ shapes, times, most, label, help, format, say, legend });
}

/** A figure whose values can be read with the pointer and with the arrow keys. */
function readable({ shapes, times, most, label, help, format, say, legend }) {
  const readout = element("div", { class: "plot-readout line", role: "status" });
  const cursor = svg("rect", { class: "plot-cursor", x: 0, y: 0, width: 1, height: HEIGHT, hidden: true });
  const area = element(
    "div",
    { class: "plot-area", tabindex: "0", role: "group", "aria-label": `${label}. ${help}` },
    element("span", { "aria-hidden": "true" }, format.number(most)),
    shapes,
  );
  shapes.append(cursor);
  let at = null;
  const show = (index) => {
    at = index === null ? null : Math.max(0, Math.min(times.length - 1, index));
    replace(readout, at === null ? legend : say(at));
    const width = shapes.viewBox.baseVal.width / Math.max(1, times.length);
    cursor.setAttribute("x", (at ?? 0) * width);
    cursor.setAttribute("width", width);
    cursor.classList.toggle("shown", at !== null);
  };
  area.addEventListener("pointermove", (event) => {
    const box = shapes.getBoundingClientRect();
    show(Math.floor(((event.clientX - box.left) / box.width) * times.length));
  });
  area.addEventListener("pointerleave", () => show(null));
  area.addEventListener("blur", () => show(null));
  area.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by === undefined || times.length === 0) return;
    event.preventDefault();
    show((at ?? times.length) + by);
  });
  show(null);
  const ends = times.length > 0 ? [times[0], times[Math.floor(times.length / 2)], times.at(-1)] : [];
  const axis = element("div", { class: "plot-axis note", "aria-hidden": "true" }, ...ends.map((time) => element("span", {}, format.clock(time))));
  return element("figure", { class: "plot" }, readout, area, axis);
}

function key(kind, name, value) {
  return element("span", { class: "plot-key line" }, element("i", { class: `kind-${kind}`, "aria-hidden": "true" }), name, element("b", {}, value));
}

/** Names with numbers, the longest bar the greatest: `[[name, number, kind]]`. */
export function bars(entries, format) {
  const most = Math.max(1, ...entries.map(([, number]) => number));
  return element(
    "dl",
    { class: "bars" },
    ...entries.flatMap(([name, number, kind = "plain"]) => [
      element("dt", {}, element("bdi", {}, name)),
      element("dd", {}, bar(number / most, kind), element("span", {}, format.number(number))),
    ]),
  );
}

export function bar(share, kind) {
  return svg(
    "svg",
    { class: "bar", "aria-hidden": "true" },
    svg("rect", { class: `kind-${kind}`, width: `${Math.max(share * 100, share > 0 ? 1.5 : 0)}%`, height: "100%", rx: 3 }),
  );
}
