"use strict";
(() => {
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

  // Where a table is wider than the window, its edges say that there is more.
  for (const frame of document.querySelectorAll(".frame")) {
    const wide = frame.querySelector(".wide");
    const mark = () => {
      frame.classList.toggle("more-left", wide.scrollLeft > 1);
      frame.classList.toggle("more-right", wide.scrollLeft + wide.clientWidth < wide.scrollWidth - 1);
    };
    wide.addEventListener("scroll", mark, { passive: true });
    new ResizeObserver(mark).observe(wide);
  }
})();
