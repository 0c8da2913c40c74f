"use strict";
(() => {
  const root = document.documentElement;
  const remember = (value) => { try { localStorage.setItem("compat-theme", value); } catch { /* file:// may forbid storage */ } };
  const preferred = matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("theme");

  function apply(theme) {
    root.dataset.theme = theme;
    button.textContent = theme === "dark" ? "Light theme" : "Dark theme";
    dispatchEvent(new Event("compat-theme"));
  }
  button.hidden = false;
  button.addEventListener("click", () => {
    const next = root.dataset.theme === "dark" ? "light" : "dark";
    remember(next);
    root.dataset.chosen = "yes";
    apply(next);
  });
  preferred.addEventListener("change", () => {
    if (!root.dataset.chosen) apply(preferred.matches ? "dark" : "light");
  });
  apply(root.dataset.theme || (preferred.matches ? "dark" : "light"));

  // An address that names an observation opens it, and everything around it.
  function reveal() {
    let name = "";
    try { name = decodeURIComponent(location.hash.slice(1)); } catch { return; }
    let target = document.getElementById(name);
    if (!target) return;
    for (let one = target; one; one = one.parentElement) if (one.tagName === "DETAILS") one.open = true;
    target.scrollIntoView();
  }
  addEventListener("hashchange", reveal);
  reveal();


  // --- filters are kept in the address, and go with every link ------------------------------------
  const address = new URLSearchParams(location.search);
  const CARRIED = ["machine", "task", "precision", "verdict", "words"];
  function keep(wanted) {
    CARRIED.forEach((key) => { if (wanted[key]) address.set(key, wanted[key]); else address.delete(key); });
    const query = address.toString();
    try { history.replaceState(null, "", `${location.pathname}${query ? `?${query}` : ""}${location.hash}`); } catch { /* a page without an address */ }
    carry();
  }
  function carry() {
    const kept = new URLSearchParams();
    CARRIED.forEach((key) => { if (address.get(key)) kept.set(key, address.get(key)); });
    const query = kept.toString();
    document.querySelectorAll("a[data-cell], a[data-back]").forEach((link) => {
      const [path, anchor] = link.getAttribute("href").split("#");
      link.setAttribute("href", `${path.split("?")[0]}${query ? `?${query}` : ""}${anchor ? `#${anchor}` : ""}`);
    });
  }
  carry();

  // --- tables: sorted by a click or a key on a heading, searched by words -------------------------
  const value = (row, index) => {
    const cell = row.cells[index];
    if (cell.dataset.v === undefined) return cell.textContent.trim().toLowerCase();
    const number = Number(cell.dataset.v);
    if (cell.dataset.v === "") return null;
    return Number.isNaN(number) ? cell.dataset.v : number;
  };
  function sort(table, index, head) {
    const down = head.getAttribute("aria-sort") === "ascending";
    table.querySelectorAll("th[aria-sort]").forEach((one) => one.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [value(row, index), row]);
    const sign = down ? -1 : 1;
    // What is not known comes last, whichever way is asked for.
    rows.sort(([a], [b]) => (a === null) - (b === null) || sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b))));
    body.append(...rows.map(([, row]) => row));
  }
  document.querySelectorAll("table.sortable").forEach((table) => {
    if (table.tBodies[0].rows.length < 2) return;
    [...table.tHead.rows[0].cells].forEach((head, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => sort(table, index, head));
    });
  });
  const wordsOf = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);
  function search() {
    const machine = address.get("machine");
    const precision = address.get("precision");
    const form = document.querySelector("form[data-table]");
    const words = form ? wordsOf(form.elements.words.value) : [];
    const chosen = form ? [...form.querySelectorAll("select")].filter((one) => one.value) : [];
    const rows = [...document.querySelectorAll("table.sortable tbody tr[data-machine], table.searched tbody tr")];
    rows.forEach((row) => {
      const known = row.dataset;
      const text = row.textContent.toLowerCase();
      row.hidden = !(words.every((word) => text.includes(word)) && chosen.every((one) => known[one.name] === one.value));
      row.classList.toggle("other", !!((machine && known.machine !== machine) || (precision && known.precision && known.precision !== precision)));
    });
    if (form) form.querySelector("output").textContent = words.length || chosen.length ? `${rows.filter((row) => !row.hidden).length} rows` : "";
  }
  const tableForm = document.querySelector("form[data-table]");
  if (tableForm) {
    tableForm.hidden = false;
    const fields = [...tableForm.elements].filter((one) => one.name);
    fields.forEach((one) => { one.value = address.get(one.name) || ""; });
    tableForm.addEventListener("input", () => { keep({ ...Object.fromEntries(address), ...Object.fromEntries(new FormData(tableForm)) }); search(); });
    tableForm.addEventListener("submit", (event) => event.preventDefault());
  }
  search();

  // --- copied: the address of a page, its badge as Markdown ---------------------------------------
  async function copy(button, text) {
    let done = false;
    try { await navigator.clipboard.writeText(text); done = true; } catch { /* not from a disk */ }
    if (!done) {
      const field = document.createElement("textarea");
      field.value = text;
      document.body.append(field);
      field.select();
      done = document.execCommand("copy");
      field.remove();
    }
    const said = button.textContent;
    button.textContent = done ? "Copied" : text;
    setTimeout(() => { button.textContent = said; }, 1500);
  }
  const absolute = (path) => new URL(path, new URL(document.querySelector(".brand")?.getAttribute("href") || "index.html", location.href)).href;
  document.querySelectorAll("button[data-copy]").forEach((button) => button.addEventListener("click", () => copy(button, location.href)));
  document.querySelectorAll("button[data-badge]").forEach((button) => button.addEventListener("click", () => {
    const name = button.dataset.name.replace(/[\[\]()\\]/g, "");
    copy(button, `[![${name}](${absolute(button.dataset.badge)})](${absolute(button.dataset.page)})`);
  }));

  addEventListener("keydown", (event) => {
    const field = document.querySelector("input[type=search]");
    if (event.key === "/" && field && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) {
      event.preventDefault();
      field.focus();
    }
  });

  // --- the matrix: the first configuration that fits is the best, the list is sorted --------------
  const filters = document.getElementById("filters");
  const embedded = document.getElementById("data");
  if (!filters || !embedded) return;
  const data = JSON.parse(embedded.textContent);
  const at = Object.fromEntries(data.fields.map((name, index) => [name, index]));
  const said = (one, name) => data.texts[one[at[name]]];
  const NOT_MEASURED = null;
  const SYMBOLS = Object.fromEntries([...document.querySelectorAll(".legend .rating")].map((one) => [[...one.classList].find((name) => name.startsWith("look-")).slice(5), one.firstElementChild.textContent]));
  const SHOWN = ["note", "detail", "speed", "metric", "memory", "when"];
  const chosen = () => Object.fromEntries([...new FormData(filters)].map(([key, text]) => [key, text.trim()]));
  const cells = [...document.querySelectorAll("a[data-cell]")].map((link) => ({
    link, all: data.cells[link.dataset.cell] || [], parts: Object.fromEntries(["sym", "word", "tags", ...SHOWN].map((name) => [name, link.querySelector(`.${name}`)])),
    row: link.closest("tr"), shown: undefined,
  }));
  function paint(cell, one) {
    if (cell.shown === one) return;
    cell.shown = one;
    const { link, parts } = cell;
    link.className = `cell look-${one ? said(one, "look") : "not-measured"}`;
    parts.sym.textContent = SYMBOLS[one ? said(one, "look") : "not-measured"];
    parts.word.textContent = one ? said(one, "head") : "Not measured";
    SHOWN.forEach((name) => { parts[name].textContent = one ? said(one, name) : ""; });
    parts.tags.replaceChildren(...(one ? said(one, "tags").split("|").filter(Boolean) : []).map((words) => {
      const tag = document.createElement("span");
      tag.className = "tag";
      tag.textContent = words;
      return tag;
    }));
  }
  function filterMatrix() {
    const wanted = chosen();
    const words = wordsOf(wanted.words || "");
    const keys = ["machine", "task", "precision"].filter((key) => wanted[key]);
    const active = keys.length + words.length > 0;
    const rows = new Map();
    let count = 0;
    cells.forEach((cell) => {
      const name = cell.row.cells[0].textContent.toLowerCase();
      const left = words.filter((word) => !name.includes(word));
      const one = active
        ? cell.all.find((entry) => keys.every((key) => said(entry, key) === wanted[key]) && left.every((word) => said(entry, "words").includes(word))) || NOT_MEASURED
        : cell.all[0] || NOT_MEASURED;
      if (one || cell.all.length) paint(cell, one);
      if (one) count += 1;
      rows.set(cell.row, rows.get(cell.row) || !!one);
    });
    rows.forEach((any, row) => { row.hidden = active && !any; });
    document.getElementById("shown").textContent = active ? `${count} cells with results` : "";
    keep(wanted);
  }
  filters.hidden = false;
  CARRIED.forEach((key) => { if (address.get(key)) filters.elements[key].value = address.get(key); });
  filters.addEventListener("input", filterMatrix);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(filterMatrix));
  if (CARRIED.some((key) => address.get(key))) filterMatrix();

  // Arrows go from cell to cell.
  document.querySelector(".matrix").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const here = event.target.closest("td");
    if (!step || !here) return;
    let row = here.parentElement;
    const column = here.cellIndex + step[1];
    if (step[0]) do row = step[0] < 0 ? row.previousElementSibling : row.nextElementSibling; while (row && row.hidden);
    const next = row && row.cells[column] && row.cells[column].querySelector("a");
    if (next) { event.preventDefault(); next.focus(); }
  });
})();
