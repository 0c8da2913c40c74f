// Opens a site from the disk, follows clicks from its index, and prints what was found as JSON.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const asked = JSON.parse(readFileSync(0, "utf8"));
const puppeteer = createRequire(`${asked.modules}/`)("puppeteer-core");
const browser = await puppeteer.launch({
  executablePath: asked.chromium,
  headless: "shell",
  args: ["--no-sandbox", "--single-process", "--no-zygote", "--allow-file-access-from-files"],
});
const page = await browser.newPage();
const problems = [];
page.on("console", (message) => { if (["error", "warning"].includes(message.type())) problems.push(message.text()); });
page.on("pageerror", (error) => problems.push(String(error)));
page.on("request", (request) => { if (!/^(file|data|blob):/.test(request.url())) problems.push(`asked for ${request.url()}`); });
await page.setViewport({ width: 1440, height: 900 });

async function click(selector, words) {
  const gone = page.waitForNavigation({ timeout: 20000 });
  const found = await page.evaluate((css, text) => {
    const one = [...document.querySelectorAll(css)].find((element) => element.textContent.includes(text || ""));
    if (one) setTimeout(() => one.click());
    return !!one;
  }, selector, words);
  if (!found) { gone.catch(() => {}); throw new Error(`nothing to click: ${selector} ${words || ""}`); }
  await gone;
}
const said = () => page.evaluate(() => `${document.querySelector("main").innerText}\n${[...document.querySelectorAll("main details")].map((one) => one.textContent).join("\n")}`.replace(/\s+/g, " "));

const answers = {};
for (const question of asked.questions) {
  await page.goto(asked.index, { waitUntil: "load" });
  try {
    for (const [selector, words] of question.clicks) await click(selector, words);
    answers[question.name] = await said();
  } catch (error) { answers[question.name] = `! ${error.message}`; }
}

// Filters: how long one takes, that it stays in the address, and goes with a link.
await page.goto(asked.index, { waitUntil: "load" });
const filter = await page.evaluate(() => {
  const form = document.getElementById("filters");
  const rows = () => [...document.querySelectorAll(".matrix tbody tr")].filter((row) => !row.hidden).length;
  const before = rows();
  form.elements.precision.value = "int8";
  const started = performance.now();
  form.dispatchEvent(new Event("input", { bubbles: true }));
  document.body.offsetHeight;
  const took = performance.now() - started;
  const details = [...document.querySelectorAll(".matrix tr:not([hidden]) .detail")].map((one) => one.textContent).filter(Boolean);
  form.elements.words.value = "whisper openvino";
  form.dispatchEvent(new Event("input", { bubbles: true }));
  return { took, before, details, after: rows(), address: location.search, link: document.querySelector("a[data-cell]").getAttribute("href") };
});
await page.keyboard.press("Tab");
const kept = await page.evaluate(() => document.querySelector(".matrix tr:not([hidden]) a[data-cell$=openvino]").getAttribute("href"));
await page.goto(new URL(kept, asked.index).href, { waitUntil: "load" });
const carried = await page.evaluate(() => ({
  back: document.querySelector("[data-back]").getAttribute("href"),
  dim: document.querySelectorAll("tr.other").length,
}));
// Sorting by the keyboard: what is fastest comes last, then first; what is unknown always last.
const sorted = await page.evaluate(() => {
  const table = document.querySelector("table.sortable");
  const heads = [...table.tHead.rows[0].cells];
  const index = heads.findIndex((head) => head.textContent.startsWith("Speed"));
  const values = () => [...table.tBodies[0].rows].map((row) => row.cells[index].dataset.v);
  heads[index].querySelector("button").click();
  const up = values();
  heads[index].querySelector("button").click();
  return { up, down: values(), said: heads[index].getAttribute("aria-sort") };
});
// Claims: chosen by their verdict, sorted by their number.
await page.goto(new URL("claims.html", asked.index).href, { waitUntil: "load" });
const claims = await page.evaluate(() => {
  const form = document.querySelector("form[data-table]");
  const body = document.querySelector("table.claims").tBodies[0];
  const all = body.rows.length;
  form.elements.verdict.value = "refuted";
  form.dispatchEvent(new Event("input", { bubbles: true }));
  const head = document.querySelector("table.claims thead button");
  head.click();
  head.click();
  const shown = [...body.rows].filter((row) => !row.hidden);
  return { all, verdicts: shown.map((row) => row.dataset.verdict), ids: shown.map((row) => Number(row.cells[0].dataset.v)), address: location.search, told: form.querySelector("output").textContent };
});
await page.goto(asked.index, { waitUntil: "load" });
await page.focus(".matrix tbody a[data-cell]");
await page.keyboard.press("ArrowRight");
await page.keyboard.press("ArrowDown");
const moved = await page.evaluate(() => [document.activeElement.closest("td").cellIndex, document.activeElement.closest("tr").rowIndex]);
await page.keyboard.press("/");
const searched = await page.evaluate(() => document.activeElement.name);
const paint = await page.evaluate(() => performance.getEntriesByType("navigation")[0].loadEventEnd);

const widths = {};
for (const width of [1440, 390]) {
  await page.setViewport({ width, height: 900 });
  for (const name of asked.pages) {
    await page.goto(new URL(name, asked.index).href, { waitUntil: "load" });
    widths[`${name} at ${width}`] = await page.evaluate(() => document.documentElement.scrollWidth);
  }
}
await page.setViewport({ width: 1440, height: 900 });
await page.goto(asked.index, { waitUntil: "load" });
const pdf = Buffer.from(await page.pdf({ preferCSSPageSize: true })).toString("latin1");
const printed = (pdf.match(/\/Type\s*\/Page[^s]/g) || []).length;
console.log(JSON.stringify({ answers, filter, carried, sorted, claims, moved, searched, paint, widths, printed, problems }));
await browser.close();
