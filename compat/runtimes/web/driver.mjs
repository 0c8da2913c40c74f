// Driver of one browser with one page: it starts the browser, and ends it whatever happens.
//
// The first line of standard input (JSON) says what to start. Events go to standard output, a line
// of JSON each: the page opened, or the browser or the tab is gone. When standard input ends, the
// process that started the driver has ended: the driver then ends the browser, removes the profile,
// and ends itself.

import { rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import path from 'node:path';

const say = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);
let browser;
let launching;
let profile;

async function end(status) {
  // A browser cannot be ended while it is starting.
  await launching?.catch(() => {});
  try {
    browser?.process()?.kill('SIGKILL');
    // The browser leads a process group, in which its children are.
    if (browser?.process()?.pid && process.platform !== 'win32') {
      process.kill(-browser.process().pid, 'SIGKILL');
    }
  } catch { /* The browser has ended already. */ }
  if (profile) {
    for (let attempt = 0; attempt < 20; attempt += 1) {
      try {
        rmSync(profile, { recursive: true, force: true, maxRetries: 3, retryDelay: 50 });
        break;
      } catch { /* A process that is still ending may have written a file: try again. */ }
    }
  }
  process.exit(status);
}

async function start(job) {
  profile = job.profile;
  const require = createRequire(path.join(job.modules, 'resolve.js'));
  const puppeteer = require('puppeteer-core');
  launching = puppeteer.launch({
    browser: job.browser,
    executablePath: job.executable,
    headless: job.headed ? false : job.shell ? 'shell' : true,
    args: job.args,
    extraPrefsFirefox: job.preferences,
    userDataDir: job.profile,
    // Chromium ends by itself when its pipe closes.
    pipe: job.browser === 'chrome',
    env: { ...process.env, ...job.environment },
    timeout: job.timeout,
    protocolTimeout: 0,
    defaultViewport: null,
    handleSIGINT: false,
    handleSIGTERM: false,
    handleSIGHUP: false,
  });
  browser = await launching;
  browser.on('disconnected', () => say({ event: 'gone', message: 'the browser has ended' }));
  const page = (await browser.pages())[0] ?? await browser.newPage();
  page.on('error', (error) => say({ event: 'gone', message: `the tab crashed: ${error.message}` }));
  page.on('close', () => say({ event: 'gone', message: 'the tab was closed' }));
  page.on('pageerror', (error) => say({ event: 'gone', message: `the page failed: ${error.message}` }));
  page.on('console', (message) => console.error(`${message.type()}: ${message.text()}`));
  await page.goto(job.url, { timeout: job.timeout, waitUntil: 'domcontentloaded' });
  say({ event: 'open', version: await browser.version(), process: browser.process().pid });
}

process.on('SIGTERM', () => end(0));
process.on('SIGINT', () => end(0));
const lines = createInterface({ input: process.stdin });
lines.once('line', (line) => start(JSON.parse(line)).catch((error) => {
  say({ event: 'gone', message: String(error.message ?? error).split('\n').slice(0, 12).join(' | ') });
  end(1);
}));
lines.once('close', () => end(0));
