"use strict";
(() => {
  const body = document.querySelector("#claims tbody");
  if (!body) return;
  const cell = (row, column) => row.children[column].textContent.trim();
  document.querySelectorAll("#claims th button").forEach((button) => button.addEventListener("click", () => {
    const head = button.parentElement;
    const down = head.getAttribute("aria-sort") === "ascending";
    document.querySelectorAll("#claims thead th").forEach((one) => one.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].sort((a, b) => cell(a, button.dataset.column).localeCompare(cell(b, button.dataset.column), "en", { numeric: true }));
    body.append(...(down ? rows.reverse() : rows));
  }));
  document.getElementById("verdict").addEventListener("change", (event) => {
    for (const row of body.rows) row.hidden = Boolean(event.target.value) && row.dataset.verdict !== event.target.value;
  });
})();
