"use strict";
// Sorting, filtering and unfolding. Without it the page is complete: every record is shown unfolded.

(() => {
  const form = document.querySelector("form.filters");
  const boards = [...document.querySelectorAll("section.board")].map((section) => ({
    section,
    table: section.querySelector("table"),
    lines: [...section.querySelectorAll("tbody.line")],
    none: section.querySelector("p.none"),
    sortBy: section.querySelector(".sortby select"),
  }));

  // ---- sorting ------------------------------------------------------------------------------

  const order = new Intl.Collator(undefined, { numeric: true });

  /** What a line is sorted by: a number, a text, or null for an empty cell (always last). */
  function key(line, column) {
    const cell = line.rows[0].cells[column];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    const name = cell.querySelector(".name");
    const text = (name || cell).textContent.trim();
    return text === "-" ? null : text;
  }

  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return order.compare(String(a), String(b));
  }

  function sort(board, column, direction) {
    const sign = direction === "descending" ? -1 : 1;
    const keyed = board.lines.map((line, at) => ({ line, at, key: column < 0 ? at : key(line, column) }));
    keyed.sort((a, b) => {
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.at - b.at;
      return sign * compare(a.key, b.key) || a.at - b.at;
    });
    board.table.append(...keyed.map((entry) => entry.line));
    [...board.table.tHead.rows[0].cells].forEach((header, at) => {
      header.setAttribute("aria-sort", at === column ? direction : "none");
    });
    board.sortBy.value = column < 0 ? "" : `${column} ${direction}`;
  }

  for (const board of boards) {
    [...board.table.tHead.rows[0].cells].forEach((header, column) => {
      const button = header.querySelector("button");
      button.disabled = false;
      button.addEventListener("click", () => {
        const rising = header.getAttribute("aria-sort") === "ascending";
        sort(board, column, rising ? "descending" : "ascending");
      });
    });
    board.sortBy.parentElement.hidden = false;
    board.sortBy.value = "";
    board.sortBy.addEventListener("change", () => {
      const [column, direction] = board.sortBy.value.split(" ");
      sort(board, column === "" ? -1 : Number(column), direction || "ascending");
    });
  }

  // ---- unfolding ----------------------------------------------------------------------------

  function unfold(line, open) {
    line.querySelector("button.unfold").setAttribute("aria-expanded", String(open));
    line.rows[1].hidden = !open;
  }

  for (const board of boards) {
    for (const line of board.lines) {
      const button = line.querySelector("button.unfold");
      button.hidden = false;
      unfold(line, false);
      button.addEventListener("click", () => {
        unfold(line, button.getAttribute("aria-expanded") !== "true");
      });
    }
  }

  // ---- filtering ----------------------------------------------------------------------------

  function filter() {
    const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const { source, kind } = { source: form.elements.source.value, kind: form.elements.kind.value };
    let shown = 0;
    let all = 0;
    for (const board of boards) {
      let here = 0;
      const about = board.section.id;
      for (const line of board.lines) {
        const text = `${about} ${line.rows[0].textContent}`.toLowerCase();
        const passes =
          (!source || line.dataset.source === source) &&
          (!kind || line.dataset.kind === kind) &&
          words.every((word) => text.includes(word));
        line.hidden = !passes;
        here += passes;
      }
      board.none.hidden = here > 0;
      board.section.querySelector(".scroll").hidden = here === 0;
      shown += here;
      all += board.lines.length;
    }
    form.querySelector("output").textContent = `${shown} of ${all} lines`;
  }

  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("change", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  filter();

  // ---- a link from a picture to a line that the filter hides ---------------------------------

  function reveal() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.matches("tbody.line")) {
      if (target.hidden) {
        form.reset();
        filter();
      }
      target.scrollIntoView({ block: "center" });
      target.querySelector("button.unfold").focus({ preventScroll: true });
    }
  }

  window.addEventListener("hashchange", reveal);
  reveal();
})();
