"use strict";
// Sorts and filters the table of trials, and shows a trial in the figures. Without it the page is whole, but still.
(function () {
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((one) => one.setAttribute("open", ""));
  });

  const table = document.getElementById("trial-table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const heads = Array.from(table.tHead.rows[0].cells);
  const names = heads.map((head) => head.dataset.name);
  const labels = heads.map((head) => head.textContent.trim());
  const filter = document.getElementById("filter");
  const boxes = Array.from(document.querySelectorAll(".by-state"));
  const shown = document.getElementById("shown");

  function key(row, column) {
    const told = row.cells[column].dataset.key;
    if (told === undefined) return null;
    return "numeric" in heads[column].dataset ? Number(told) : told;
  }

  function sort(column) {
    const numeric = "numeric" in heads[column].dataset;
    const before = heads[column].getAttribute("aria-sort");
    // numbers from the largest down first, names from a up
    const down = before ? before === "ascending" : numeric;
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    const sign = down ? -1 : 1;
    const places = new Map(rows.map((row, place) => [row, place]));
    rows.sort((one, other) => {
      const a = key(one, column), b = key(other, column);
      if (a === null || b === null) return (a === null) - (b === null) || places.get(one) - places.get(other);
      const order = numeric ? a - b : a.localeCompare(b);
      return sign * order || places.get(one) - places.get(other);
    });
    body.append(...rows);
  }

  // one word of the filter: name>number, name<=number, name=text, or a text that the row must have
  function test(word) {
    const parts = /^([\w/]+)(<=|>=|=|<|>)(.*)$/.exec(word);
    const column = parts ? Math.max(names.indexOf(parts[1]), labels.indexOf(parts[1])) : -1;
    if (column < 0) return (row) => row.textContent.toLowerCase().includes(word.toLowerCase());
    const [, , relation, wanted] = parts;
    const limit = Number(wanted);
    const asNumber = wanted !== "" && !Number.isNaN(limit) && "numeric" in heads[column].dataset;
    return (row) => {
      const value = key(row, column);
      if (wanted === "") return true; // still being typed
      if (value === null) return false;
      if (!asNumber) return relation === "=" && String(value).toLowerCase() === wanted.toLowerCase();
      if (relation === "=") return value === limit || row.cells[column].textContent === wanted;
      if (relation === "<") return value < limit;
      if (relation === ">") return value > limit;
      return relation === "<=" ? value <= limit : value >= limit;
    };
  }

  function narrow() {
    const tests = filter.value.split(/\s+/).filter(Boolean).map(test);
    const states = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    let count = 0;
    for (const row of rows) {
      row.hidden = !(states.has(row.dataset.state) && tests.every((one) => one(row)));
      count += !row.hidden;
    }
    shown.textContent = count + " of " + rows.length + " trials";
  }

  function pick(row) {
    const on = row.classList.toggle("picked");
    row.querySelector(".pick").setAttribute("aria-pressed", String(on));
    const picked = new Set(rows.filter((one) => one.classList.contains("picked")).map((one) => one.dataset.row));
    for (const svg of document.querySelectorAll("svg")) {
      const drawn = Array.from(svg.querySelectorAll("[data-trial]"));
      drawn.forEach((one) => one.classList.toggle("on", picked.has(one.dataset.trial)));
      svg.classList.toggle("picking", picked.size > 0 && drawn.length > 0);
    }
  }

  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => sort(column)));
  rows.forEach((row) => row.querySelector(".pick").addEventListener("click", () => pick(row)));
  filter.addEventListener("input", narrow);
  boxes.forEach((box) => box.addEventListener("change", narrow));
  document.querySelector(".controls").hidden = false;
  narrow();
})();
