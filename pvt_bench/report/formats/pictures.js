"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const charts = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const format = (value) => Number(value.toPrecision(5)).toLocaleString("en", { maximumSignificantDigits: 5 });

  function add(parent, name, attributes = {}, text = "") {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text) element.textContent = text;
    parent.append(element);
    return element;
  }

  function ticks(low, high, log) {
    if (log) {
      const all = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
        // Within a decade or two there is room for more than three values of each.
        for (const factor of high / low < 30 ? [1, 1.5, 2, 3, 5, 7] : [1, 2, 5]) all.push(factor * 10 ** power);
      }
      return all.filter((value) => value >= low && value <= high);
    }
    const rough = (high - low) / 6 || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
    const all = [];
    for (let value = Math.ceil(low / step) * step; value <= high + step / 1e6; value += step) all.push(value);
    return all;
  }

  function scale(values, from, to, { log = false, zero = false } = {}) {
    let low = Math.min(...values), high = Math.max(...values);
    if (log) { low /= 1.2; high *= 1.2; }
    else {
      const margin = (high - low || Math.abs(high) || 1) * 0.06;
      low = zero && low >= 0 ? 0 : low - margin;
      high += margin;
    }
    const along = log ? Math.log10 : (value) => value;
    const place = (value) => from + ((along(value) - along(low)) / (along(high) - along(low))) * (to - from);
    return { place, ticks: ticks(low, high, log) };
  }

  const namesOf = (chart) => [...new Set(chart.series.filter((each) => !each.quiet).map((each) => each.name))];
  const colour = (chart, series) => {
    if (series.quiet) return "var(--faint)";
    return series.published ? "var(--quiet)" : `var(--c${namesOf(chart).indexOf(series.name) % dashes.length})`;
  };
  // One for each colour: they tell the series apart without them.
  const dashes = ["none", "7 3", "2 3", "9 3 2 3", "12 4", "5 2 1 2 1 2", "4 4", "1 2"];
  const dash = (chart, series) => (series.quiet ? "none" : dashes[namesOf(chart).indexOf(series.name) % dashes.length]);
  const shapes = [
    (x, y, r) => `M${x - r},${y}a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0`,
    (x, y, r) => `M${x - r},${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
    (x, y, r) => `M${x},${y - r * 1.2}l${r * 1.2},${r * 2.2}h${-r * 2.4}z`,
    (x, y, r) => `M${x},${y + r * 1.2}l${r * 1.2},${-r * 2.2}h${-r * 2.4}z`,
    (x, y, r) => `M${x},${y - r * 1.4}l${r * 1.4},${r * 1.4}l${-r * 1.4},${r * 1.4}l${-r * 1.4},${-r * 1.4}z`,
  ];
  function mark(parent, chart, series, x, y) {
    const shape = series.published ? shapes[4] : shapes[namesOf(chart).indexOf(series.name) % 4];
    const paint = colour(chart, series);
    add(parent, "path", {
      class: "mark", d: shape(x, y, 4.5), fill: series.published ? "var(--paper)" : paint, stroke: paint, "stroke-width": 1.5,
    });
  }

  function describe(chart, series, [x, y, label, deviation, , more]) {
    const bars = chart.kind === "bars";
    const lines = [[label, series.name].filter(Boolean).join(" · ")];
    const spread = deviation === null ? "" : ` ± ${format(deviation)}`;
    lines.push(`${chart.x}: ${format(x)}${bars ? spread : ""}`);
    if (!bars) lines.push(`${chart.y}: ${format(y)}${spread}`);
    if (more) lines.push(more);
    return lines.join("\n");
  }

  function showTip(event, text, label) {
    tip.textContent = text;
    tip.hidden = false;
    const box = event.target.getBoundingClientRect();
    const left = Math.min(box.right + 10, innerWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${Math.max(8, Math.min(box.top - 8, innerHeight - tip.offsetHeight - 8))}px`;
    for (const row of document.querySelectorAll("tr[data-label]")) row.classList.toggle("pointed", row.dataset.label === label);
  }
  function hideTip() {
    tip.hidden = true;
    for (const row of document.querySelectorAll("tr.pointed")) row.classList.remove("pointed");
  }

  function axes(svg, chart, box, x, y, names) {
    for (const value of x.ticks) {
      add(svg, "line", { class: "grid", x1: x.place(value), x2: x.place(value), y1: box.top, y2: box.bottom });
      add(svg, "text", { x: x.place(value), y: box.bottom + 16, "text-anchor": "middle" }, format(value));
    }
    const left = names ? [...names].map(([value, text]) => [value, text]) : y.ticks.map((value) => [value, format(value)]);
    for (const [value, text] of left) {
      if (!names) add(svg, "line", { class: "grid", x1: box.left, x2: box.right, y1: y.place(value), y2: y.place(value) });
      add(svg, "text", { x: box.left - 6, y: y.place(value) + 4, "text-anchor": "end" }, text);
    }
    add(svg, "line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom });
    add(svg, "line", { class: "axis", x1: box.left, x2: box.left, y1: box.top, y2: box.bottom });
    add(svg, "text", { x: (box.left + box.right) / 2, y: box.bottom + 34, "text-anchor": "middle" }, chart.x);
    if (chart.y) add(svg, "text", { transform: `translate(14,${(box.top + box.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, chart.y);
  }

  function point(svg, chart, series, values, x, y, between) {
    const [, , label, deviation, target] = values;
    const look = between ? "point between" : "point";
    const group = target ? add(svg, "a", { href: target, class: look }) : add(svg, "g", { class: look, tabindex: 0 });
    const [left, top] = [x.place(values[0]), y.place(values[1])];
    if (deviation !== null) {
      const bars = chart.kind === "bars";
      const ends = bars
        ? { x1: x.place(values[0] - deviation), x2: x.place(values[0] + deviation), y1: top, y2: top }
        : { x1: left, x2: left, y1: y.place(values[1] - deviation), y2: y.place(values[1] + deviation) };
      add(group, "line", { ...ends, stroke: colour(chart, series), "stroke-width": 1.5 });
    }
    mark(group, chart, series, left, top);
    const text = describe(chart, series, values);
    group.setAttribute("aria-label", text.replaceAll("\n", ", "));
    for (const kind of ["mouseenter", "focus"]) group.addEventListener(kind, (event) => showTip(event, text, label));
    for (const kind of ["mouseleave", "blur"]) group.addEventListener(kind, hideTip);
  }

  function draw(container, chart, hidden) {
    const series = chart.series.filter((each) => !hidden.has(each.name));
    const all = series.flatMap((each) => each.points);
    container.replaceChildren();
    if (!all.length) return;
    const bars = chart.kind === "bars";
    const names = bars ? new Map(chart.series.flatMap((each) => each.points.map((values) => [values[1], values[2]]))) : null;
    const width = container.clientWidth || 640;
    const height = bars ? 60 + 20 * names.size : Math.min(460, Math.max(300, width * 0.55));
    const longest = bars ? Math.max(...[...names.values()].map((name) => name.length)) : 0;
    const box = { left: bars ? Math.min(20 + 7 * longest, width / 2) : 64, right: width - 16, top: 10, bottom: height - 44 };
    // The names of curves stand at their ends.
    const ends = chart.kind === "lines" ? series.filter((each) => each.line && !each.quiet) : [];
    const room = labels.room(ends.map((each) => each.name), width);
    box.right -= room;
    const spread = (values) => (values[3] === null ? 0 : values[3]);
    const xs = all.flatMap((v) => (bars ? [v[0] - spread(v), v[0] + spread(v)] : [v[0]]));
    const ys = bars ? [...names.keys()] : all.flatMap((v) => [v[1] - spread(v), v[1] + spread(v)]);
    const x = scale(xs, box.left, box.right, { zero: bars });
    const y = scale(ys, box.bottom, box.top, { log: chart.log, zero: chart.kind === "lines" });
    const svg = add(container, "svg", { viewBox: `0 0 ${width} ${height}`, height });
    axes(svg, chart, box, x, y, names);
    if (chart.front.length && !hidden.has("measured")) {
      const steps = chart.front.map(([a, b], n) => `${n ? `H${x.place(a)}V${y.place(b)}` : `M${x.place(a)},${y.place(b)}`}`);
      add(svg, "path", { class: "front", d: steps.join("") });
    }
    const single = bars && chart.series.filter((each) => !each.published).length === 1;
    for (const each of series) {
      if (single && !each.published) {
        for (const [value, row] of each.points) {
          const paint = { fill: colour(chart, each), opacity: 0.35 };
          add(svg, "rect", { x: box.left, y: y.place(row) - 6, width: x.place(value) - box.left, height: 12, ...paint });
        }
      }
      if (each.line) {
        const path = each.points.map((values, n) => `${n ? "L" : "M"}${x.place(values[0])},${y.place(values[1])}`);
        const look = { "stroke-width": each.quiet ? 1 : 1.6, "stroke-dasharray": dash(chart, each) };
        add(svg, "path", { class: "line", d: path.join(""), fill: "none", stroke: colour(chart, each), ...look });
      }
      if (each.quiet) continue;
      const every = each.line && each.points.length > 60 ? Math.ceil(each.points.length / 30) : 1;
      // Of a long curve few marks are seen, and the others where one points at them.
      const seen = each.line ? every * Math.ceil(each.points.length / every / 10) : 1;
      each.points.forEach((values, n) => { if (n % every === 0) point(svg, chart, each, values, x, y, n % seen !== 0); });
    }
    const placed = (values) => ({ x: x.place(values[0]), y: y.place(values[1]), name: values[2] });
    if (chart.kind === "points") {
      const isFront = (values) => chart.front.some(([a, b]) => a === values[0] && b === values[1]);
      const points = series.flatMap((each) => each.points.map((values) => ({ ...placed(values), front: isFront(values) })));
      const corners = chart.front.map(([a, b]) => ({ x: x.place(a), y: y.place(b) }));
      labels.besidePoints((name, attributes, text) => add(svg, name, attributes, text), points, corners, box);
    }
    const last = ends.map((each) => ({ ...placed(each.points.at(-1)), name: each.name, paint: colour(chart, each) }));
    labels.atEnds((name, attributes, text) => add(svg, name, attributes, text), last, box, room);
  }

  function legend(container, chart, hidden, redraw) {
    const quiet = chart.series.filter((each) => each.quiet).map((each) => each.name);
    for (const name of new Set([...namesOf(chart), ...quiet])) {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      const svg = add(button, "svg", { viewBox: "0 0 28 14" });
      const shown = chart.series.find((each) => each.name === name);
      const look = { stroke: colour(chart, shown), "stroke-width": 2, "stroke-dasharray": dash(chart, shown) };
      if (shown.line) add(svg, "line", { x1: 0, x2: 28, y1: 7, y2: 7, ...look });
      if (!shown.quiet) mark(svg, chart, shown, 14, 7);
      button.append(name);
      button.addEventListener("click", () => {
        if (!hidden.delete(name)) hidden.add(name);
        button.setAttribute("aria-pressed", String(!hidden.has(name)));
        redraw();
      });
      container.append(button);
    }
  }

  function numbers(container, chart) {
    const table = document.createElement("table");
    const heading = table.createTHead().insertRow();
    const bars = chart.kind === "bars";
    for (const text of ["series", "", chart.x, ...(bars ? [] : [chart.y]), "±"]) {
      const cell = document.createElement("th");
      cell.textContent = text;
      heading.append(cell);
    }
    const body = table.createTBody();
    for (const series of chart.series) {
      for (const [x, y, label, deviation] of series.points) {
        const row = body.insertRow();
        const spread = deviation === null ? "" : format(deviation);
        for (const text of [series.name, label, format(x), ...(bars ? [] : [format(y)]), spread]) row.insertCell().textContent = text;
      }
    }
    container.append(table);
  }

  for (const figure of document.querySelectorAll("figure")) {
    const container = figure.querySelector(".chart");
    const chart = charts[Number(container.dataset.chart)];
    const hidden = new Set();
    const redraw = () => draw(container, chart, hidden);
    legend(figure.querySelector(".legend"), chart, hidden, redraw);
    let width = 0;
    new ResizeObserver(() => {
      if (container.clientWidth === width) return;
      width = container.clientWidth;
      redraw();
    }).observe(container);
    const details = figure.querySelector("details");
    details.addEventListener("toggle", () => numbers(details.querySelector("div"), chart), { once: true });
  }
})();
