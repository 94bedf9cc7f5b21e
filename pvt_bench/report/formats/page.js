"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const charts = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const format = (value) => Number(value.toPrecision(5)).toLocaleString("en", { maximumSignificantDigits: 5 });

  // Light or dark.
  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  // Tables: a click on a heading sorts within the sections, what is missing comes last.
  const keyOf = (cell) => {
    if (cell.dataset.key) return Number(cell.dataset.key);
    const text = cell.textContent.trim();
    return cell.classList.contains("number") ? null : text || null;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });

  function sort(table, heading) {
    const column = heading.cellIndex;
    const falling = heading.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !row.classList.contains("section"));
      const keyed = rows.map((row) => [keyOf(row.cells[column]), row]);
      keyed.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        return falling ? compare(b, a) : compare(a, b);
      });
      body.append(...keyed.map(([, row]) => row));
    }
  }

  // A word is searched for in the whole row; AP>40 compares the column of that heading.
  function condition(word, names) {
    const parts = /^(.+?)(<=|>=|<|>|=)(.+)$/.exec(word);
    const column = parts ? names.indexOf(parts[1].toLowerCase()) : -1;
    if (column < 0) return (row, text) => text.includes(word);
    const [, , sign, wanted] = parts;
    return (row) => {
      const key = keyOf(row.cells[column]);
      if (key === null) return false;
      if (sign === "=") return typeof key === "number" ? key === Number(wanted) : key.toLowerCase() === wanted;
      const limit = Number(wanted);
      return { "<": key < limit, ">": key > limit, "<=": key <= limit, ">=": key >= limit }[sign];
    };
  }

  function filter(input) {
    const table = document.getElementById(input.dataset.table);
    const names = [...table.tHead.rows[0].cells].map((cell) => (cell.dataset.name || cell.textContent).replace(/\s/g, "").toLowerCase());
    const conditions = input.value.toLowerCase().split(/\s+/).filter(Boolean).map((word) => condition(word, names));
    let shown = 0;
    for (const body of table.tBodies) {
      for (const row of body.rows) {
        if (row.classList.contains("section")) continue;
        row.dataset.text ??= row.textContent.toLowerCase();
        row.hidden = !conditions.every((meets) => meets(row, row.dataset.text));
        shown += !row.hidden;
      }
    }
    input.parentElement.querySelector("output").textContent = `${shown} rows`;
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    for (const heading of table.tHead.rows[0].cells) {
      heading.querySelector("button").addEventListener("click", () => sort(table, heading));
    }
  }
  for (const input of document.querySelectorAll("input[data-table]")) {
    input.addEventListener("input", () => filter(input));
  }

  // Pictures.
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
        for (const factor of [1, 2, 5]) all.push(factor * 10 ** power);
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

  const colour = (chart, series) => {
    const names = [...new Set(chart.series.map((each) => each.name))];
    return series.published ? "var(--quiet)" : `var(--c${names.indexOf(series.name) % 7})`;
  };
  const shapes = [
    (x, y, r) => `M${x - r},${y}a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0`,
    (x, y, r) => `M${x - r},${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
    (x, y, r) => `M${x},${y - r * 1.2}l${r * 1.2},${r * 2.2}h${-r * 2.4}z`,
    (x, y, r) => `M${x},${y + r * 1.2}l${r * 1.2},${-r * 2.2}h${-r * 2.4}z`,
    (x, y, r) => `M${x},${y - r * 1.4}l${r * 1.4},${r * 1.4}l${-r * 1.4},${r * 1.4}l${-r * 1.4},${-r * 1.4}z`,
  ];
  function mark(parent, chart, series, x, y) {
    const names = [...new Set(chart.series.map((each) => each.name))];
    const shape = series.published ? shapes[4] : shapes[names.indexOf(series.name) % 4];
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

  function point(svg, chart, series, values, x, y) {
    const [, , label, deviation, target] = values;
    const group = target ? add(svg, "a", { href: target, class: "point" }) : add(svg, "g", { class: "point", tabindex: 0 });
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
        add(svg, "path", { d: path.join(""), fill: "none", stroke: colour(chart, each), "stroke-width": 1.5 });
      }
      const every = each.line && each.points.length > 60 ? Math.ceil(each.points.length / 30) : 1;
      each.points.forEach((values, n) => { if (n % every === 0) point(svg, chart, each, values, x, y); });
    }
  }

  function legend(container, chart, hidden, redraw) {
    for (const name of new Set(chart.series.map((each) => each.name))) {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      const svg = add(button, "svg", { viewBox: "0 0 28 14" });
      mark(svg, chart, chart.series.find((each) => each.name === name), 14, 7);
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
