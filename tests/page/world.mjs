// What redeliver meets: names, and hosts that answer by their name. All of it is loopback.

import dgram from "node:dgram";
import net from "node:net";

// What each host says to RCPT, or at another stage. `#` is a number that differs from mail to mail.
export const HOSTS = {
  "mail.example": {},
  "kunden.example": { rcpt: "550 5.1.1 <RCPT>: no such user here" },
  "amt.example": { rcpt: "554 5.7.1 Service unavailable; client host [192.0.2.7] is on our block list, id #" },
  "werk.example": { dot: "554 5.6.0 Message refused: it has an attachment that we do not take (queue id #)" },
  "bank.example": { rcpt: "550 5.2.2 <RCPT>: mailbox is full" },
  "versand.example": { mail: "553 5.1.8 Sender address refused: its domain does not exist" },
  "archiv.example": { rcpt: "550-5.7.1 Relaying is not permitted.\r\n550 5.7.1 See https://archiv.example/relay for details" },
  "praxis.example": { rcpt: "550 5.7.26 This message is not authenticated: neither SPF nor DKIM passed" },
  "schule.example": { rcpt: "550 5.4.1 Recipient address refused: access denied" },
  "spaeter.example": { rcpt: "451 4.7.1 <RCPT>: greylisted, come back in 300 seconds" },
  "voll.example": { rcpt: "452 4.2.2 <RCPT>: mailbox over quota" },
  // Takes its time, in milliseconds.
  "langsam.example": { rcpt: "451 4.3.2 <RCPT>: busy, come back later", after: 1000 },
  // Nobody listens there.
  "stumm.example": null,
  // What a stranger may say to harm whoever looks at it.
  "boese.example": {
    rcpt: [
      "550-5.7.1 <script>document.title='pwned'</script><img src=x onerror=alert(1)>",
      "550-5.7.1 \u202eright to left\u202c \u001b[31mred\u001b[0m \u0007 \u0085 {{7*7}} ${7*7}",
      ...Array.from({ length: 14 }, (_, at) => `550-5.7.1 ${String(at).padStart(2, "0")} ${"long ".repeat(140)}`),
      "550 5.7.1 \"'><a href=\"https://evil.example/\">click</a>",
    ].join("\r\n"),
  },
};

const addressOf = (place) => `127.0.1.${place + 1}`;

const server = (listen) => new Promise((done, failed) => {
  listen.once("error", failed);
  listen.once("listening", done);
});

// A host that answers as it is told to.
const answer = (socket, host, name) => {
  let buffer = "", data = false, number = 0;
  const say = (text) => socket.write(`${text}\r\n`);
  socket.on("error", () => {});
  socket.setEncoding("latin1");
  const filled = (text, rcpt) => text.replaceAll("<RCPT>", rcpt).replaceAll("#", `${process.hrtime.bigint() % 9999991n}${number++}`);
  const said = (text) => Buffer.from(text, "utf8").toString("latin1");
  socket.write(`220 ${name} ESMTP\r\n`);
  socket.on("data", (octets) => {
    buffer += octets;
    for (let end; (end = buffer.indexOf("\r\n")) >= 0;) {
      const line = buffer.slice(0, end);
      buffer = buffer.slice(end + 2);
      if (data) {
        if (line !== ".") continue;
        data = false;
        say(filled(host.dot ?? "250 2.0.0 queued as #", ""));
      } else if (/^EHLO/i.test(line)) {
        socket.write(`250-${name}\r\n250-SMTPUTF8\r\n250 8BITMIME\r\n`);
      } else if (/^DATA/i.test(line)) {
        data = true;
        say("354 go on");
      } else if (/^QUIT/i.test(line)) {
        say("221 bye");
        socket.end();
      } else if (/^MAIL/i.test(line)) {
        say(host.mail ?? "250 2.1.0 ok");
      } else if (/^RCPT/i.test(line)) {
        const rcpt = /<[^>]*>/.exec(line)?.[0] ?? "<>";
        const reply = Buffer.from(`${said(filled(host.rcpt ?? "250 2.1.5 ok", rcpt))}\r\n`, "latin1");
        setTimeout(() => socket.write(reply), host.after ?? 0);
      } else {
        say("250 2.0.0 ok");
      }
    }
  });
};

// Answers to A and MX of the hosts above; all else does not exist.
const resolve = (message) => {
  const labels = [];
  let at = 12;
  while (message[at] > 0) {
    labels.push(message.toString("latin1", at + 1, at + 1 + message[at]));
    at += 1 + message[at];
  }
  const question = message.subarray(12, at + 5), kind = message.readUInt16BE(at + 1);
  const name = labels.join(".").toLowerCase(), place = Object.keys(HOSTS).indexOf(name.replace(/^mx\./, ""));
  const head = Buffer.alloc(12);
  message.copy(head, 0, 0, 2);
  const record = (type, content) => Buffer.concat([
    Buffer.from([0xc0, 12, 0, type, 0, 1, 0, 0, 1, 44, 0, content.length]), content,
  ]);
  let found = [];
  if (place >= 0 && kind === 15 && !name.startsWith("mx.")) {
    found = [record(15, Buffer.from([0, 10, 2, 0x6d, 0x78, 0xc0, 12]))];
  } else if (place >= 0 && kind === 1) {
    found = [record(1, Buffer.from(addressOf(place).split(".").map(Number)))];
  }
  head.writeUInt16BE(place >= 0 ? 0x8580 : 0x8583, 2);
  head.writeUInt16BE(1, 4);
  head.writeUInt16BE(found.length, 6);
  return Buffer.concat([head, question, ...found]);
};

// A port that nobody uses.
export const freePort = async () => {
  const probe = net.createServer().listen(0, "127.0.0.1");
  await server(probe);
  const { port } = probe.address();
  await new Promise((done) => probe.close(done));
  return port;
};

// The hosts and the name server; what they are asked is answered until `end`.
export const world = async () => {
  const port = await freePort();
  const listeners = [];
  for (const [place, [name, host]] of Object.entries(HOSTS).entries()) {
    if (host === null) continue;
    const listener = net.createServer((socket) => answer(socket, host, `mx.${name}`)).listen(port, addressOf(place));
    await server(listener);
    listeners.push(listener);
  }
  const names = dgram.createSocket("udp4");
  names.on("message", (message, from) => names.send(resolve(message), from.port, from.address));
  names.bind(0, "127.0.0.1");
  await server(names);
  return {
    port,
    names: names.address().port,
    end: () => {
      listeners.forEach((listener) => listener.close());
      names.close();
    },
  };
};
