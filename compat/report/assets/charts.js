"use strict";
(() => {
  const root = document.documentElement;
  const embedded = document.getElementById("data");
  if (!embedded) return;
  const data = JSON.parse(embedded.textContent);
  const library = document.currentScript ? document.currentScript.dataset.plotly : document.querySelector("script[data-plotly]").dataset.plotly;

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
    if (!traces.length) {
      Plotly.purge(place);
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
  const section = document.getElementById("latency-section");
  if (section && !data.points.some((one) => one.seconds.length)) section.hidden = true;

  // Drawn when they come into view: a page is read from its top.
  const wanted = new URLSearchParams(location.search);
  const fits = (one) => ["machine", "precision"].every((key) => !wanted.get(key) || one[key] === wanted.get(key));
  let visible = false;
  // Five megabytes that only who looks at a chart needs.
  function load() {
    if (document.querySelector("script[data-library]")) return;
    const script = document.createElement("script");
    script.dataset.library = "";
    script.src = library;
    script.addEventListener("load", chartsOf);
    document.head.append(script);
  }
  function chartsOf() {
    if (!visible || typeof Plotly === "undefined") return;
    const points = data.points.filter(fits);
    scatter(points);
    latency(points);
  }
  const places = [...document.querySelectorAll(".chart")];
  const observer = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    visible = true;
    load();
  }, { rootMargin: "300px" });
  places.forEach((place) => observer.observe(place));
  addEventListener("compat-theme", chartsOf);
})();
