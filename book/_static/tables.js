/* On a phone a table of many columns is a list: each row's cells stand below one another, with the
 * name of their column beside them. The style sheet does that where cells know the name; here they
 * are told, and the roles that a table loses by it are given back. */
(() => {
"use strict";

const FEW = 4; // columns that a phone has room for

function tell(table) {
  const [head, ...more] = table.tHead?.rows ?? [];
  if (!head || more.length || head.cells.length <= FEW) return;
  const names = [...head.cells].map((cell) => cell.textContent.trim());
  table.closest("figure").classList.add("stabkit-list");
  table.setAttribute("role", "table");
  for (const part of [table.tHead, ...table.tBodies]) {
    part.setAttribute("role", "rowgroup");
    for (const row of part.rows) row.setAttribute("role", "row");
  }
  for (const cell of head.cells) cell.setAttribute("role", "columnheader");
  for (const row of [...table.tBodies].flatMap((body) => [...body.rows])) {
    [...row.cells].forEach((cell, i) => {
      cell.setAttribute("role", cell.tagName === "TH" ? "rowheader" : "cell");
      cell.dataset.column = names[i];
    });
  }
}
document.querySelectorAll(".stabkit-sheet:not(.stabkit-verdicts) table").forEach(tell);
})();
