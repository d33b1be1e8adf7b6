"use strict";
// Sorts the tables by their columns: by the number behind a cell where there is one, else by its text.
(() => {
  const collator = new Intl.Collator("en", { numeric: true });

  const key = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    return cell.classList.contains("none") ? null : cell.textContent.trim();
  };

  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return collator.compare(String(a), String(b));
  };

  // Rows below one heading stay below it.
  const groups = (rows) => {
    const parts = [{ heading: null, rows: [] }];
    for (const row of rows) {
      if (row.querySelector('th[scope="rowgroup"]')) parts.push({ heading: row, rows: [] });
      else parts[parts.length - 1].rows.push(row);
    }
    return parts;
  };

  const arrange = (table, original, column, direction) => {
    const order = [];
    for (const part of groups(original)) {
      if (part.heading) order.push(part.heading);
      let rows = part.rows;
      if (direction !== "none") {
        const sign = direction === "ascending" ? 1 : -1;
        const keyed = rows.map((row) => [key(row, column), row]);
        const known = keyed.filter(([value]) => value !== null);
        known.sort((a, b) => sign * compare(a[0], b[0]));
        rows = [...known, ...keyed.filter(([value]) => value === null)].map((entry) => entry[1]); // n/a stays last
      }
      order.push(...rows);
    }
    table.tBodies[0].append(...order);
  };

  for (const table of document.querySelectorAll("figure.table table")) {
    if (!table.tHead) continue;
    const original = [...table.tBodies[0].rows];
    if (Math.max(...groups(original).map((part) => part.rows.length)) < 2) continue;
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      const isNumber = original.some((row) => row.cells.length > 1 && row.cells[column].dataset.value !== undefined);
      const turns = isNumber ? ["none", "descending", "ascending"] : ["none", "ascending", "descending"];
      button.addEventListener("click", () => {
        const next = turns[(turns.indexOf(head.getAttribute("aria-sort")) + 1) % turns.length];
        for (const other of heads) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", next);
        arrange(table, original, column, next);
      });
    });
  }
})();
