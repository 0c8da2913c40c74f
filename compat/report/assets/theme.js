"use strict";
// Not deferred: a chosen theme is set before anything is painted. Without a choice the style sheet
// follows the browser.
(() => {
  const root = document.documentElement;
  let stored = null;
  try { stored = localStorage.getItem("compat-theme"); } catch { /* file:// may forbid storage */ }
  const asked = new URLSearchParams(location.search).get("theme");
  const theme = [asked, stored].find((one) => one === "dark" || one === "light");
  if (theme) {
    root.dataset.theme = theme;
    root.dataset.chosen = "yes";
  }
})();
