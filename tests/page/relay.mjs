// A redeliver of its own: configured, started, fed and ended.

import { execFile, spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";

import { freePort } from "./world.mjs";

const PROGRAM = path.resolve("target/debug/redeliver");

const configuration = (world, smtp, admin, passwords) => `
hostname: relay.firm.example
stateDirectory: ./var
stores: { sqlite: { path: redeliver.db }, cassandra: sqlite }
smtp: { listen: ["127.0.0.1:${smtp}"], processor: relay }
admin: { listen: "127.0.0.1:${admin}"${passwords} }
dns: { servers: ["127.0.0.1:${world.names}"], timeout: 1s, attempts: 1 }
log: { level: error }
processors:
  relay:
    - { match: AtMost=8, mailet: RemoteDelivery, outgoing: outgoing, port: ${world.port}, bounceProcessor: remote-delivery-error }
    - { match: All, mailet: ToRepository, repositoryPath: "sqlite://var/mail/error/remote-delivery/permanent/" }
  remote-delivery-error:
    - { match: IsRemoteDeliveryPermanentError, mailet: ToRepository, repositoryPath: "sqlite://var/mail/error/remote-delivery/permanent/" }
    - { match: IsRemoteDeliveryTemporaryError, mailet: ToRepository, repositoryPath: "sqlite://var/mail/error/remote-delivery/temporary/" }
    - { match: All, mailet: ToRepository, repositoryPath: "sqlite://var/mail/error/" }
`;

const FILES = {
  "jobs/retry-temporary.yaml":
    "kind: reprocess\nrepository: sqlite://var/mail/error/remote-delivery/temporary/\nprocessor: relay\nspacing: [15m, 1h, 6h, 1d]\n",
  "jobs/purge-permanent.yaml":
    "kind: purge\nrepository: sqlite://var/mail/error/remote-delivery/permanent/\nolderThan: 400d\nforce: true\n",
  "schedules/retry-temporary.yaml": 'job: retry-temporary\ncron: "0 3 * * *"\ntimezone: Europe/Berlin\n',
  "schedules/purge-permanent.yaml": 'job: purge-permanent\ncron: "30 4 * * 0"\n',
};

const PAST = `
PRAGMA busy_timeout = 5000;
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 26)
INSERT INTO outcome_hour SELECT hour - i, 0, next_hop, 40 + (i * 37) % 90, (i * 13) % 17, (i * 7) % 9, last_at - i * 3600000, last
FROM n, (SELECT * FROM outcome_hour GROUP BY next_hop HAVING max(delivered) LIMIT 1);
WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 30)
INSERT INTO outcome_day SELECT unixepoch() / 86400 - i, '*', 900 + (i * 531) % 700, (i * 97) % 160, (i * 53) % 90 FROM n;
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 13)
INSERT INTO failure_day SELECT cause, repository, day - i, mails * ((i * 11 + length(cause || mails) * 3) % 13) / 20 FROM n, failure_day
WHERE mails * ((i * 11 + length(cause || mails) * 3) % 13) / 20 > 0;
UPDATE failure_group SET oldest = oldest - 13 * 86400000 + mails * 700000;
`;

// Started in a directory of its own, which goes with it.
export const start = async (world, { guarded = false } = {}) => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "redeliver-page-"));
  const [smtp, admin] = [await freePort(), await freePort()];
  const passwords = guarded ? ', password: ["full"], passwordReadonly: ["look"], passwordNodelete: ["keep"]' : "";
  fs.writeFileSync(path.join(directory, "redeliver.yaml"), configuration(world, smtp, admin, passwords));
  for (const [name, text] of Object.entries(FILES)) {
    fs.mkdirSync(path.join(directory, path.dirname(name)), { recursive: true });
    fs.writeFileSync(path.join(directory, name), text);
  }
  const config = ["--config", path.join(directory, "redeliver.yaml")];
  const child = spawn(PROGRAM, [...config, "serve"], { stdio: ["ignore", "inherit", "inherit"] });
  const origin = `http://127.0.0.1:${admin}`;
  const relay = {
    origin,
    headers: guarded ? { Password: "full" } : {},
    feed: (mails) => feed(smtp, mails),
    get: async (where) => (await fetch(origin + where, { headers: relay.headers })).json(),
    // Not waited for in the thread that answers for the hosts.
    command: (...given) => new Promise((done) => execFile(PROGRAM, [...config, ...given], (_, stdout) => done(stdout))),
    // What a month would leave in the sums, for a picture.
    past: () => spawnSync("sqlite3", [path.join(directory, "var/redeliver.db")], { input: PAST, encoding: "utf8" }),
    settled: () => until(async () => (await relay.get("/mailQueues/spool")).size === 0, 300),
    end: async () => {
      const ended = new Promise((done) => child.once("exit", done));
      child.kill("SIGTERM");
      await ended;
      fs.rmSync(directory, { recursive: true, force: true });
    },
  };
  await until(async () => (await fetch(`${origin}/healthcheck`)).ok, 60);
  return relay;
};

// Waits until something is so; what is not there yet is asked again.
export const until = async (is, seconds) => {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    if (await is().catch(() => false)) return;
    if (Date.now() > end) throw new Error(`it is not so after ${seconds} s: ${is}`);
    await new Promise((done) => setTimeout(done, 100));
  }
};

// Hands mails in over SMTP, one after the other on a few connections.
const feed = async (port, mails) => {
  const shares = Array.from({ length: 8 }, (_, at) => mails.filter((_, place) => place % 8 === at));
  await Promise.all(shares.filter((share) => share.length > 0).map((share) => hand(port, share)));
};

const hand = async (port, mails) => {
  const socket = net.connect(port, "127.0.0.1");
  const lines = reader(socket);
  const say = async (text, expected) => {
    socket.write(text === null ? "" : `${text}\r\n`);
    const reply = await lines();
    if (!reply.startsWith(expected)) throw new Error(`${text}: ${reply}`);
  };
  await say(null, "220");
  await say("EHLO client.firm.example", "250");
  for (const { from, to, subject, extra = "" } of mails) {
    await say(`MAIL FROM:<${from}> SMTPUTF8`, "250");
    for (const one of [to].flat()) await say(`RCPT TO:<${one}>`, "250");
    await say("DATA", "354");
    const header = `From: <sender@firm.example>\r\nTo: <somebody@else.example>\r\nSubject: ${subject}\r\n`;
    await say(`${header}Message-ID: <${Math.random()}@firm.example>\r\n${extra}\r\nHello.\r\n.`, "250");
  }
  await say("QUIT", "221");
  socket.end();
};

// Gives whole replies, one at a time.
const reader = (socket) => {
  let buffer = "", waiting = null;
  const look = () => {
    const reply = /^(?:\d{3}-[^\n]*\n)*\d{3}(?: [^\n]*)?\n/.exec(buffer);
    if (!reply || !waiting) return;
    buffer = buffer.slice(reply[0].length);
    const give = waiting;
    waiting = null;
    give(reply[0]);
  };
  socket.on("error", () => {});
  socket.on("data", (octets) => {
    buffer += octets;
    look();
  });
  return () => new Promise((done) => {
    waiting = done;
    look();
  });
};

// `number` mails that fail for good for eight causes, most for the first; some are deferred, some delivered.
export const mails = (number) => {
  const shares = [
    ["kunden.example", 34], ["amt.example", 22], ["werk.example", 14], ["bank.example", 10],
    ["versand.example", 8], ["archiv.example", 6], ["praxis.example", 4], ["schule.example", 2],
  ];
  const all = shares.flatMap(([domain, share]) => of(domain, Math.ceil((number * share) / 100)));
  const some = Math.ceil(number / 50);
  return [...all, ...of("spaeter.example", some), ...of("voll.example", some), ...of("stumm.example", 3), ...of("mail.example", some * 4)];
};

const SENDERS = ["invoices", "orders", "newsletter", "alerts", "support"];
const NAMES = ["anna", "bernd", "clara", "david", "emil", "frieda", "georg", "helga", "ida", "jakob"];

// Mails for one host.
export const of = (domain, number) => Array.from({ length: number }, (_, at) => ({
  from: `${SENDERS[at % SENDERS.length]}@firm.example`,
  to: `${NAMES[at % NAMES.length]}.${at}@${domain}`,
  subject: `Invoice ${1000 + at}`,
}));

// Mails of who wants to harm whoever looks at them.
export const HOSTILE = [
  {
    from: '"<script>alert(1)</script>"@firm.example',
    to: ['"<img/src=x>"@boese.example', "right\u202eleft@boese.example"],
    subject: "<script>document.title='pwned'</script> \u202egnp.exe {{7*7}}",
    extra: `X-Long: ${"long ".repeat(190)}\r\n X ${"long ".repeat(190)}\r\nX-Quote: "><svg onload=alert(1)>\r\n`,
  },
  { from: "", to: `${"a".repeat(60)}@boese.example`, subject: `=?utf-8?q?${"=E2=80=AE".repeat(20)}?=` },
];
