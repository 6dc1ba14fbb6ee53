// The browser, and what must hold of every page that it shows.

import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";

export const complaints = [];
let where = "";

// Something is not as it must be; all of it is told at the end.
export const complain = (text) => {
  complaints.push(`${where}: ${text}`);
  console.log(`  NOT RIGHT  ${where}: ${text}`);
};

export const check = (is, text) => {
  if (!is) complain(text);
};

// What comes now is about this.
export const about = (name) => {
  where = name;
  console.log(`- ${name}`);
};

export const open = async (place) => {
  const { chromium } = createRequire(path.join(place, "x.js"))("playwright-core");
  const axe = fs.readFileSync(path.join(place, "node_modules/axe-core/axe.min.js"), "utf8");
  const browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"],
  });
  fs.rmSync(path.join(place, "html"), { recursive: true, force: true });
  fs.mkdirSync(path.join(place, "html"), { recursive: true });
  return { browser, axe, place };
};

// A window whose every request and complaint is watched.
export const tab = async ({ browser }, origin, { script = true, dark = false, width = 1280, height = 900, scale = 1 } = {}) => {
  const context = await browser.newContext({
    javaScriptEnabled: script,
    colorScheme: dark ? "dark" : "light",
    viewport: { width, height },
    deviceScaleFactor: scale,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  page.on("request", (request) => {
    if (!request.url().startsWith(`${origin}/`) && !request.url().startsWith("data:")) {
      complain(`a request leaves the origin: ${request.url()}`);
    }
  });
  page.on("console", (message) => {
    const text = message.text();
    const isOfStatus = /Failed to load resource: the server responded with a status of 4/.test(text);
    if (["error", "warning"].includes(message.type()) && !isOfStatus) complain(`the console says: ${text}`);
  });
  page.on("pageerror", (error) => complain(`the script fails: ${error}`));
  page.on("dialog", (dialog) => {
    complain(`a dialog opens: ${dialog.message()}`);
    dialog.dismiss();
  });
  return page;
};

let pages = 0;

// Goes somewhere and looks at what every page must have.
export const visit = async (page, url, { status = 200, place } = {}) => {
  const answer = await page.goto(url);
  check(answer.status() === status, `status ${answer.status()} instead of ${status}`);
  const html = await answer.text();
  if (place) fs.writeFileSync(path.join(place, "html", `${String(++pages).padStart(3, "0")}.html`), html);
  check(html.length < 50_000, `${html.length} octets`);
  check(!/\sstyle=/.test(html), "a style within an element");
  check(!/<script(?! src=)/.test(html), "a script within the page");
  check((await page.locator("h1").count()) === 1, "not one h1");
  check((await page.title()).endsWith(" - redeliver"), `the title is ${await page.title()}`);
  check((await page.locator("nav").count()) === 1, "not one navigation");
  return html;
};

// What axe-core finds against WCAG 2.2 AA.
export const accessible = async ({ axe }, page) => {
  await page.evaluate(axe);
  const found = await page.evaluate(async () => {
    const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];
    const { violations } = await window.axe.run(document, { runOnly: { type: "tag", values: tags } });
    return violations.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map(({ html, failureSummary }) => `${html.slice(0, 160)} ${failureSummary.slice(0, 200)}`).join(" | ")}`);
  });
  found.forEach((one) => complain(`axe: ${one}`));
};

// Nothing but tables and what is preformatted may be wider than the window.
export const fits = async (page) => {
  const { scrolled, shown } = await page.evaluate(() => ({
    scrolled: document.documentElement.scrollWidth,
    shown: document.documentElement.clientWidth,
  }));
  check(scrolled <= shown, `it is ${scrolled} wide in a window of ${shown}`);
};
