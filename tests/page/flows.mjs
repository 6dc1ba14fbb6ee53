// What is done on pages, by mouse and by keyboard, with a script and without.

import { about, check, complain, tab, visit } from "./browser.mjs";
import { of, until } from "./relay.mjs";

const PERMANENT = "/ui/repositories/var/mail/error/remote-delivery/permanent";

export const flows = async (tools, _hosts, relay) => {
  for (const script of [true, false]) {
    const how = script ? "" : ", no script";
    const full = await relay(200);
    const flow = async (name, given, does) => {
      about(name + how);
      const page = await tab(tools, full.origin, { script, ...given });
      try {
        await does(page, full);
      } catch (error) {
        complain(String(error).split("\n").slice(0, 3).join(" "));
      }
      await page.context().close();
    };
    await flow("two clicks to the remote host's own words", {}, twoClicks);
    await flow("find, preview, reprocess", {}, reprocess);
    await flow("acknowledge a cause", {}, acknowledge);
    await flow("pause and resume", {}, pauses);
    await flow("run a job", {}, runs);
    await flow("search the record", {}, searches);
    await flow("by keyboard alone", {}, byKeyboard);
    await flow("cancel a task under way", {}, cancels);
    await flow("a condition that cannot be read", {}, misreads);
    const guarded = await relay(50, { guarded: true });
    about(`log in and out${how}`);
    await login(tools, guarded, script);
    about(`what a role may not do${how}`);
    await roles(tools, guarded, script);
  }
};

const button = (page, name) => page.getByRole("button", { name });
const inMain = (page, name) => page.locator("main").getByRole("link", { name }).first();

const twoClicks = async (page, { origin }) => {
  await visit(page, `${origin}/ui/`);
  await inMain(page, /no such user/).click();
  check(/550 5\.1\.1 <[^>]+@kunden\.example>: no such user here/.test(await page.locator("main").innerText()), "no words");
};

// The task is done, however often its page had to be asked for.
const taskEnds = async (page) => {
  check(/\/ui\/tasks\/[0-9a-f-]{36}/.test(page.url()), `it leads to ${page.url()}`);
  const url = page.url();
  await until(async () => {
    await page.goto(url);
    return /completed/.test(await page.locator("main").innerText());
  }, 30);
};

const reprocess = async (page, { origin, settled }) => {
  await visit(page, origin + PERMANENT);
  await page.getByLabel(/^Recipient/).fill("*@schule.example");
  await button(page, "Filter").click();
  check(page.url() === `${origin}${PERMANENT}?recipient=*%40schule.example`, `the filter leads to ${page.url()}`);
  await inMain(page, /^Reprocess/).click();
  const asked = Number(/Reprocess (\d+) mail/.exec(await page.locator("h1").innerText())?.[1]);
  check(asked > 0, "nothing is counted");
  await button(page, /^Reprocess/).click();
  await taskEnds(page);
  check((await page.locator("main").innerText()).includes(`${asked} of`), "not as many as were counted");
  await page.locator("dl").getByRole("link").last().click();
  check((await page.locator("ul.keys li").count()) === asked, "the operation names others");
  await settled();
};

const acknowledge = async (page, { origin }) => {
  await visit(page, `${origin}/ui/groups`);
  await inMain(page, /mailbox is full/).click();
  await inMain(page, /^Acknowledge/).click();
  await page.getByLabel(/Note/).fill("<b>known</b>");
  await button(page, /^Acknowledge/).click();
  await taskEnds(page);
  await visit(page, `${origin}/ui/groups`);
  const row = page.locator("tr", { hasText: "mailbox is full" });
  check((await row.locator("td").nth(1).innerText()).trim() === "0", "some are left");
};

const pauses = async (page, { origin }) => {
  await visit(page, `${origin}/ui/jobs/retry-temporary`);
  await inMain(page, /^Pause/).click();
  await page.getByLabel(/Why/).fill("the other side moves");
  await page.getByLabel(/Until/).fill("2h");
  await button(page, "Pause").click();
  check((await page.getByRole("status").innerText()).includes("is paused"), "it does not say so");
  check((await page.locator("main").innerText()).includes("the other side moves"), "it does not say why");
  await visit(page, `${origin}/ui/`);
  check((await page.locator("main").innerText()).includes("the other side moves"), "nobody is told");
  await visit(page, `${origin}/ui/jobs/retry-temporary`);
  await inMain(page, /^Resume/).click();
  await button(page, "Resume").click();
  check((await page.getByRole("status").innerText()).includes("is not paused"), "it does not say so");
};

const runs = async (page, { origin, settled }) => {
  await visit(page, `${origin}/ui/jobs/retry-temporary`);
  await inMain(page, /^Run now/).click();
  await page.getByLabel(/not due/).check();
  await button(page, "Run it now").click();
  await taskEnds(page);
  await visit(page, `${origin}/ui/jobs/retry-temporary`);
  check((await page.locator("main").innerText()).includes("http"), "the run is not there");
  await settled();
};

const searches = async (page, { origin }) => {
  await visit(page, `${origin}/ui/attempts`);
  await page.getByLabel(/^Recipient/).fill("*@mail.example");
  await page.getByLabel("Outcome").selectOption("delivered");
  await button(page, "Search").click();
  check(page.url() === `${origin}/ui/attempts?recipient=*%40mail.example&outcome=delivered`, `it leads to ${page.url()}`);
  const rows = page.locator("tbody tr");
  check((await rows.count()) > 0, "nothing is found");
  check((await rows.first().innerText()).includes("@mail.example"), "others are found");
  await rows.first().getByRole("link").first().click();
  check((await page.locator("h1").count()) === 1, "the mail that is gone has no page");
};

// Each mail takes a second, on ten connections.
const cancels = async (page, { origin, feed, settled, get }) => {
  await feed(of("langsam.example", 80));
  await settled();
  const newest = async () => (await get("/runs?limit=20")).items.find((one) => one.trigger === "http");
  const before = (await newest())?.run;
  await visit(page, `${origin}/ui/jobs/retry-temporary`);
  await inMain(page, /^Run now/).click();
  await page.getByLabel(/not due/).check();
  await button(page, "Run it now").click();
  const task = page.url();
  const states = (state) => until(async () => {
    await page.goto(task);
    return state.test(await page.locator("main").innerText());
  }, 20);
  await states(/^\s*under way/m);
  await inMain(page, /^Cancel/).click();
  check((await page.locator("h1").innerText()) === "Cancel this task?", "it does not ask");
  await button(page, "Cancel the task").click();
  check(page.url() === task, `it leads to ${page.url()}`);
  await states(/^\s*cancelled/m);
  check((await inMain(page, /^Cancel/).count()) === 0, "it can be cancelled once more");
  const run = await newest();
  // Behind a tick of the schedule it may have waited for its turn, and never begun.
  if (run.run === before) return settled();
  check(run.deferred + run.delivered < 80, `all ${run.deferred + run.delivered} were attempted`);
  check(/^cancelled by /.test(run.failure), `the run says ${JSON.stringify(run)}`);
  await settled();
};

const misreads = async (page, { origin }) => {
  await visit(page, origin + PERMANENT);
  await page.getByLabel(/^Recipient/).fill("*@schule.example");
  await page.getByLabel("Code").fill("five");
  await Promise.all([page.waitForURL(/code=five/), button(page, "Filter").click()]);
  check((await page.getByRole("alert").innerText()).includes("Nothing was looked for"), "it does not say so");
  check((await page.getByLabel(/^Recipient/).inputValue()) === "*@schule.example", "the form is empty");
  check((await page.locator("[aria-invalid]").getAttribute("name")) === "code", "another field is marked");
  await page.getByLabel("Code").fill("550");
  await button(page, "Filter").click();
  check((await page.locator("tbody tr").count()) > 0, "nothing is found");
};

// Moves on with the tabulator until the link or button has the focus.
const tabTo = async (page, wanted) => {
  for (let steps = 0; steps < 200; steps += 1) {
    await page.keyboard.press("Tab");
    const text = await page.evaluate(() => {
      const { tagName = "", innerText = "" } = document.activeElement ?? {};
      return ["A", "BUTTON"].includes(tagName) ? innerText : "";
    });
    if (wanted.test(text)) {
      const { outlineStyle } = await page.evaluate(() => {
        const { outlineStyle } = getComputedStyle(document.activeElement);
        return { outlineStyle };
      });
      check(outlineStyle !== "none", `nobody sees that ${wanted} has the focus`);
      return;
    }
  }
  throw new Error(`${wanted} cannot be reached with the tabulator`);
};

const byKeyboard = async (page, { origin }) => {
  const leads = async (wanted) => {
    await tabTo(page, wanted);
    const before = page.url();
    await page.keyboard.press("Enter");
    await page.waitForURL((url) => url.href !== before, { timeout: 10_000 });
  };
  await visit(page, `${origin}/ui/`);
  await page.keyboard.press("Tab");
  check((await page.evaluate(() => document.activeElement.className)) === "skip", "the first stop is not the content");
  await page.keyboard.press("Enter");
  await leads(/attachment that we do not take/);
  await leads(/^Reprocess/);
  await leads(/^Reprocess/);
  await taskEnds(page);
};

const logIn = async (page, password) => {
  await page.getByLabel("Password").fill(password);
  await button(page, "Log in").click();
};

const login = async (tools, { origin }, script) => {
  const page = await tab(tools, origin, { script });
  await page.goto(`${origin}/ui/groups?repository=permanent`);
  check(page.url().startsWith(`${origin}/ui/login?next=`), `it leads to ${page.url()}`);
  await logIn(page, "wrong");
  check((await page.getByRole("alert").count()) === 1, "a wrong password is not told");
  await logIn(page, "full");
  check(page.url() === `${origin}/ui/groups?repository=permanent`, `the login leads to ${page.url()}`);
  await button(page, "Log out").click();
  check(page.url().startsWith(`${origin}/ui/login`), "it stays logged in");
  await page.goto(`${origin}/ui/`);
  check(page.url().startsWith(`${origin}/ui/login`), "it is still logged in");
  await page.context().close();
};

const roles = async (tools, relay, script) => {
  const { origin } = relay;
  const group = (await relay.get("/groups")).items[0].id;
  for (const [password, offered] of [["look", []], ["keep", ["Reprocess", "Acknowledge"]], ["full", ["Reprocess", "Acknowledge"]]]) {
    const page = await tab(tools, origin, { script });
    await page.goto(`${origin}/ui/groups/${group}`);
    await logIn(page, password);
    for (const verb of ["Reprocess", "Acknowledge"]) {
      check((await page.locator("main a.button", { hasText: verb }).count() > 0) === offered.includes(verb), `${password}: ${verb}`);
    }
    await page.goto(`${origin}${PERMANENT}`);
    const removes = (await page.locator("main a.button", { hasText: "Remove" }).count()) > 0;
    check(removes === (password === "full"), `${password}: remove is ${removes ? "" : "not "}offered`);
    await page.goto(`${origin}/ui/jobs/purge-permanent`);
    const purges = (await page.locator("main a.button", { hasText: "Run now" }).count()) > 0;
    check(purges === (password === "full"), `${password}: a purge is ${purges ? "" : "not "}offered`);
    await page.context().close();
  }
};
