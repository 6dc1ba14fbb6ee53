// Every page, full and empty, as it is looked at: light and dark, narrow and magnified, and of what
// means harm; with a script and without.

import { about, accessible, check, fits, tab, visit } from "./browser.mjs";

const PERMANENT = "/ui/repositories/var/mail/error/remote-delivery/permanent";

// The pages there are, by name; those of one mail, cause or task are found as a reader finds them.
export const pagesOf = async (relay) => {
  const first = async (where) => (await relay.get(where)).items?.[0];
  const group = await first("/groups");
  const hostile = (await relay.get("/attempts?recipient=*@boese.example")).items?.[0];
  const task = (await relay.get("/tasks"))[0];
  const pages = {
    overview: "/ui/",
    places: "/ui/repositories/",
    repository: PERMANENT,
    filtered: `${PERMANENT}?recipient=*%40bank.example&code=550`,
    spool: "/ui/spool",
    groups: "/ui/groups",
    "groups of one": "/ui/groups?repository=temporary",
    attempts: "/ui/attempts",
    "attempts found": "/ui/attempts?recipient=*%40kunden.example&outcome=failed&since=1d",
    jobs: "/ui/jobs",
    job: "/ui/jobs/retry-temporary",
    "run a job": "/ui/jobs/retry-temporary/run",
    "run a purge": "/ui/jobs/purge-permanent/run",
    "pause a schedule": "/ui/schedules/retry-temporary/pause",
    "resume a schedule": "/ui/schedules/retry-temporary/resume",
    peers: "/ui/peers",
    explain: "/ui/explain",
    explained: "/ui/explain?recipient=anna%40kunden.example",
    "not explained": "/ui/explain?recipient=anna",
    operations: "/ui/operations",
    tasks: "/ui/tasks",
  };
  if (group) {
    const { id, examples: [key] } = group;
    pages.group = `/ui/groups/${id}`;
    pages.mail = `/ui/mails/${key}`;
    pages.attempt = `/ui/mails/${key}/attempts/1`;
    for (const verb of ["reprocess", "move", "acknowledge", "remove"]) {
      pages[`${verb} many`] = `/ui/act/${verb}?repository=permanent&group=${id}`;
    }
    pages["reprocess one"] = `/ui/act/reprocess?repository=permanent&key=${key}`;
  }
  if (hostile) {
    pages["a hostile mail"] = `/ui/mails/${hostile.key}`;
    pages["a hostile attempt"] = `/ui/mails/${hostile.key}/attempts/${hostile.number}`;
    pages["hostile words searched"] = "/ui/attempts?recipient=%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E";
    pages["a hostile filter"] = `${PERMANENT}?text=%3Cscript%3Ealert(1)%3C%2Fscript%3E`;
  }
  if (task) {
    pages.task = `/ui/tasks/${task.taskId}`;
    if (task.operation) pages.operation = `/ui/operations/${task.operation}`;
  }
  return pages;
};

const REFUSED = {
  "nothing there": ["/ui/nothing", 404],
  "no such group": ["/ui/groups/0123456789ab", 404],
  "no group at all": ["/ui/groups/%3Cscript%3E", 404],
  "no such mail": ["/ui/mails/%3Cscript%3E", 404],
  "no such job": ["/ui/jobs/%3Cscript%3E", 404],
  "no such task": ["/ui/tasks/%3Cscript%3E", 404],
  "no such operation": ["/ui/operations/%3Cscript%3E", 404],
  "no reply code": ["/ui/attempts?code=%3Cscript%3E", 400],
};

export const looks = async (tools, { empty, full }) => {
  await something(full);
  for (const [relay, kind] of [[full, "full"], [empty, "empty"]]) {
    const pages = await pagesOf(relay);
    for (const script of [true, false]) {
      const page = await tab(tools, relay.origin, { script });
      for (const [name, url] of Object.entries(pages)) {
        about(`${kind}: ${name}${script ? "" : ", no script"}`);
        const html = await visit(page, relay.origin + url, { place: script ? tools.place : null });
        check(!/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/.test(html), "what steers is in it");
        check((await page.title()) !== "pwned", "a script of others ran");
        check((await page.locator("img, script:not([src]), [onerror], [onload], a[href*=evil]").count()) === 0, "elements of others");
      }
      for (const [name, [url, status]] of Object.entries(script ? REFUSED : {})) {
        about(`${kind}: ${name}`);
        await visit(page, relay.origin + url, { status, place: tools.place });
      }
      await page.context().close();
    }
    await views(tools, relay, pages, kind);
  }
};

// So that there are a task, an operation, a pause and a note to look at.
const something = async (relay) => {
  const of = "recipient=*@schule.example";
  const post = (where, method, body) =>
    fetch(relay.origin + where, { method, body: body && JSON.stringify(body), headers: relay.headers });
  const all = `/mailRepositories/var%2Fmail%2Ferror%2Fremote-delivery%2Fpermanent/mails?action=reprocess&processor=relay&${of}`;
  const { taskId } = await (await post(all, "PATCH")).json();
  await relay.get(`/tasks/${taskId}/await`);
  await relay.settled();
  await post("/schedules/purge-permanent/pause", "POST", { reason: "<b>moved</b> until \u202emonday" });
};

const views = async (tools, relay, pages, kind) => {
  for (const [view, given] of Object.entries({
    light: {},
    dark: { dark: true },
    "320 px, light": { width: 320, height: 640 },
    "320 px, dark": { width: 320, height: 640, dark: true },
    "200 %": { width: 640, height: 450, scale: 2 },
  })) {
    const page = await tab(tools, relay.origin, given);
    for (const [name, url] of Object.entries(pages)) {
      about(`${kind}: ${name}, ${view}`);
      await page.goto(relay.origin + url);
      await fits(page);
      await accessible(tools, page);
    }
    await page.context().close();
  }
};
