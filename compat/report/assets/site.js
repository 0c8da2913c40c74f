"use strict";
(() => {
  const root = document.documentElement;
  const remember = (value) => { try { localStorage.setItem("compat-theme", value); } catch { /* file:// may forbid storage */ } };
  const preferred = matchMedia("(prefers-color-scheme: dark)");
  const listeners = [];
  const button = document.getElementById("theme");

  function apply(theme) {
    root.dataset.theme = theme;
    button.textContent = theme === "dark" ? "Light theme" : "Dark theme";
    listeners.forEach((listener) => listener());
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

  const embedded = document.getElementById("data");
  if (!embedded) return;
  const data = JSON.parse(embedded.textContent);
  const filters = document.getElementById("filters");
  const chosen = () => (filters ? Object.fromEntries(new FormData(filters)) : {});
  const fits = (one, wanted) => Object.entries(wanted).every(([key, value]) => !value || one[key] === value);

  // --- the matrix: the first configuration that fits is the best, the list is sorted ---------
  const NOT_MEASURED = { look: "not-measured", symbol: "–", head: "Not measured", note: "", detail: "", badges: [] };
  function filterMatrix() {
    const wanted = chosen();
    let shown = 0;
    document.querySelectorAll("a[data-cell]").forEach((cell) => {
      const best = data.cells[cell.dataset.cell].find((one) => fits(one, wanted)) || NOT_MEASURED;
      if (best.look !== "not-measured") shown += 1;
      cell.className = `cell look-${best.look}`;
      cell.querySelector(".sym").textContent = best.symbol;
      cell.querySelector(".word").textContent = best.head;
      cell.querySelector(".note").textContent = best.note;
      cell.querySelector(".detail").textContent = best.detail;
      cell.querySelector(".tags").replaceChildren(...best.badges.map((badge) => {
        const tag = document.createElement("span");
        tag.className = "tag";
        tag.textContent = badge;
        return tag;
      }));
    });
    document.querySelectorAll(".matrix tbody tr").forEach((row) => {
      const lists = [...row.querySelectorAll("a[data-cell]")].map((cell) => data.cells[cell.dataset.cell]);
      row.hidden = !!wanted.task && !lists.flat().some((one) => one.task === wanted.task);
    });
    document.querySelectorAll("#configurations tbody tr").forEach((row) => { row.hidden = !fits(row.dataset, wanted); });
    const active = Object.values(wanted).some(Boolean);
    document.getElementById("shown").textContent = active ? `${shown} cells with results` : "";
  }

  // --- charts --------------------------------------------------------------------------------
  const escapeHtml = (value) => String(value).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

  const colour = (one) => data.palette[one.colour][root.dataset.theme === "dark" ? 1 : 0];
  function layout(extra) {
    // Resolved colours, not the variables: those hold both themes.
    const foot = getComputedStyle(document.querySelector("footer"));
    const [ink, muted, line] = [getComputedStyle(document.body).color, foot.color, foot.borderTopColor];
    const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, tickfont: { color: muted }, automargin: true };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, family: "system-ui, sans-serif", size: 13 },
      margin: { l: 20, r: 16, t: 16, b: 20 }, hoverlabel: { align: "left" }, ...extra,
      xaxis: { ...axis, ...extra.xaxis }, yaxis: { ...axis, ...extra.yaxis },
    };
  }
  const CONFIG = { responsive: true, displaylogo: false, displayModeBar: false, showTips: false };

  function draw(id, traces, made, empty) {
    const place = document.getElementById(id);
    if (!place) return;
    if (!traces.length || typeof Plotly === "undefined") {
      if (typeof Plotly !== "undefined") Plotly.purge(place);
      place.className = "chart none";
      place.textContent = empty;
      return;
    }
    if (place.classList.contains("none")) { place.className = "chart"; place.textContent = ""; }
    Plotly.react(place, traces, made, CONFIG);
  }
  const hover = (one, lines) => [`<b>${escapeHtml(one.full)}</b>`, escapeHtml(one.rating), ...lines, escapeHtml(one.how)].join("<br>");

  function scatter(points) {
    const drawn = points.filter((one) => one.rtf !== null && one.degradation !== null);
    const share = drawn.every((one) => one.percent);
    const scale = share ? 100 : 1;
    const unit = share ? " (pp)" : "";
    // What all points agree in is said at the axis; the rest is said of each.
    const shared = (key) => (new Set(drawn.map((one) => one[key])).size === 1 ? drawn[0][key] : "");
    const named = [`${shared("metric")} degradation${unit}`.trim(), [shared("metric_set"), shared("metric_case")].filter(Boolean).join(", ")];
    const traces = drawn.map((one) => {
      const y = one.degradation * scale;
      const [low, high] = one.degradation_interval || [one.degradation, one.degradation];
      return {
        type: "scatter", mode: "markers", name: escapeHtml(one.name), x: [one.rtf], y: [y],
        error_y: { type: "data", symmetric: false, array: [high * scale - y], arrayminus: [y - low * scale], thickness: 1.2, color: colour(one) },
        error_x: { type: "data", symmetric: false, array: [Math.max(0, (one.rtf_upper ?? one.rtf) - one.rtf)], arrayminus: [0], thickness: 1.2, color: colour(one) },
        marker: { size: 13, symbol: one.symbol, color: colour(one), line: { width: 2, color: colour(one) } },
        text: [hover(one, [escapeHtml(one.speed), escapeHtml(one.accuracy)])],
        hoverinfo: "text",
      };
    });
    // The default labels of a log axis ("2", "5" between powers) are not read by most people.
    const speeds = drawn.map((one) => one.rtf);
    const ticks = [];
    const steps = Math.max(...speeds) > 10 * Math.min(...speeds) ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 7];
    for (let power = -6; power < 6; power += 1) {
      for (const step of steps) {
        const tick = step * 10 ** power;
        if (tick > Math.min(...speeds) / 2.5 && tick < Math.max(...speeds) * 2.5) ticks.push(tick);
      }
    }
    const narrow = document.body.clientWidth < 700;
    draw("scatter", traces, layout({
      xaxis: { title: { text: "real-time factor (lower is faster)" }, type: "log", tickvals: ticks, ticktext: ticks.map((tick) => String(Number(tick.toPrecision(2)))) },
      yaxis: { title: { text: named.filter(Boolean).map(escapeHtml).join("<br>") } },
      height: narrow ? 380 + 22 * traces.length : 430, showlegend: true,
      legend: narrow ? { orientation: "h", y: -0.25 } : {},
    }), "No configuration of this model has both a latency and a task metric yet.");
  }
  function latency(points) {
    const drawn = points.filter((one) => one.seconds.length).reverse();
    const slowest = Math.max(...drawn.map((one) => Math.max(...one.seconds)));
    const [scale, unit] = slowest < 2 ? [1e3, "ms"] : [1, "s"];
    const traces = drawn.map((one) => ({
      type: "box", orientation: "h", x: one.seconds.map((value) => value * scale), boxpoints: "all", jitter: 0.5, pointpos: 0,
      name: one.lines.map(escapeHtml).join("<br>"), marker: { color: colour(one), size: 4, opacity: 0.65 }, line: { width: 1.5 },
      text: one.seconds.map((value) => hover(one, [`${(value * scale).toPrecision(4)} ${unit}`])), hoverinfo: "text",
    }));
    draw("latency", traces, layout({
      xaxis: { title: { text: `time of the whole task (${unit})` }, rangemode: "tozero" }, yaxis: { type: "category" },
      height: 110 + drawn.reduce((sum, one) => sum + 14 + 16 * one.lines.length, 0), showlegend: false,
    }), "No raw latency samples here yet.");
  }
  const rowForm = document.getElementById("chart-row");
  function charts() {
    const wanted = chosen();
    let points = data.points.filter((one) => fits(one, wanted));
    if (rowForm) points = points.filter((one) => one.row === rowForm.elements.row.value);
    scatter(points);
    latency(points);
  }
  if (rowForm) {
    rowForm.hidden = false;
    const first = data.points.find((one) => one.rtf !== null && one.degradation !== null)
      || data.points.find((one) => one.seconds.length) || data.points[0];
    if (first) rowForm.elements.row.value = first.row;
    rowForm.addEventListener("change", charts);
  }
  if (filters) {
    filters.hidden = false;
    filters.addEventListener("change", () => { filterMatrix(); charts(); });
    filters.addEventListener("reset", () => setTimeout(() => { filterMatrix(); charts(); }));
  }
  const section = document.getElementById("latency-section");
  if (section && !data.points.some((one) => one.seconds.length)) section.hidden = true;
  listeners.push(charts);
  charts();
})();
