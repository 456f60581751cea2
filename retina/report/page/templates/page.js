"use strict";
// Sorts and filters the table of trials, and highlights trials in the figures. The page is complete without it.
(function () {
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((details) => details.setAttribute("open", ""));
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
  const summary = document.getElementById("shown");

  // the value that a row is sorted and filtered by: a number or a text; null for an empty cell
  function sortKey(row, column) {
    const key = row.cells[column].dataset.key;
    if (key === undefined) return null;
    return "numeric" in heads[column].dataset ? Number(key) : key;
  }

  function sort(column) {
    const numeric = "numeric" in heads[column].dataset;
    const previous = heads[column].getAttribute("aria-sort");
    // the first click sorts numbers in descending order, text in ascending order; the next reverses it
    const descending = previous ? previous === "ascending" : numeric;
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
    const sign = descending ? -1 : 1;
    const positions = new Map(rows.map((row, index) => [row, index]));
    rows.sort((left, right) => {
      const a = sortKey(left, column), b = sortKey(right, column);
      const tie = positions.get(left) - positions.get(right);
      if (a === null || b === null) return (a === null) - (b === null) || tie;
      const order = numeric ? a - b : a.localeCompare(b);
      return sign * order || tie;
    });
    body.append(...rows);
  }

  // returns the test of a word of the filter: name>number, name<=number, name=text, or text that the row must contain
  function rowTest(word) {
    const parts = /^([\w/]+)(<=|>=|=|<|>)(.*)$/.exec(word);
    const column = parts ? Math.max(names.indexOf(parts[1]), labels.indexOf(parts[1])) : -1;
    if (column < 0) return (row) => row.textContent.toLowerCase().includes(word.toLowerCase());
    const [, , relation, operand] = parts;
    const limit = Number(operand);
    const asNumber = operand !== "" && !Number.isNaN(limit) && "numeric" in heads[column].dataset;
    return (row) => {
      const value = sortKey(row, column);
      if (operand === "") return true; // the condition is incomplete
      if (value === null) return false;
      if (!asNumber) return relation === "=" && String(value).toLowerCase() === operand.toLowerCase();
      if (relation === "=") return value === limit || row.cells[column].textContent === operand;
      if (relation === "<") return value < limit;
      if (relation === ">") return value > limit;
      return relation === "<=" ? value <= limit : value >= limit;
    };
  }

  function applyFilter() {
    const tests = filter.value.split(/\s+/).filter(Boolean).map(rowTest);
    const states = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    let count = 0;
    for (const row of rows) {
      row.hidden = !(states.has(row.dataset.state) && tests.every((test) => test(row)));
      count += !row.hidden;
    }
    summary.textContent = count + " of " + rows.length + " trials";
  }

  function toggleHighlight(row) {
    const isPicked = row.classList.toggle("picked");
    row.querySelector(".pick").setAttribute("aria-pressed", String(isPicked));
    const picked = new Set(rows.filter((other) => other.classList.contains("picked")).map((other) => other.dataset.row));
    for (const svg of document.querySelectorAll("svg")) {
      const elements = Array.from(svg.querySelectorAll("[data-trial]"));
      elements.forEach((element) => element.classList.toggle("on", picked.has(element.dataset.trial)));
      svg.classList.toggle("picking", picked.size > 0 && elements.length > 0);
    }
  }

  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => sort(column)));
  rows.forEach((row) => row.querySelector(".pick").addEventListener("click", () => toggleHighlight(row)));
  filter.addEventListener("input", applyFilter);
  boxes.forEach((box) => box.addEventListener("change", applyFilter));
  document.querySelector(".controls").hidden = false;
  applyFilter();
})();
