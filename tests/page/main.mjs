// Everything that tests/page/run is asked for; see there.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";

import { complaints, open } from "./browser.mjs";
import { flows } from "./flows.mjs";
import { HOSTILE, mails, start } from "./relay.mjs";
import { looks } from "./looks.mjs";
import { pictures, shots } from "./shots.mjs";
import { world } from "./world.mjs";

const [place, what] = process.argv.slice(2);
const began = Date.now();
const said = (text) => console.log(`== ${text} (${Math.round((Date.now() - began) / 1000)} s)`);

const hosts = await world();
const tools = await open(place);
const relays = [];
const relay = async (number, given) => {
  const one = await start(hosts, given);
  relays.push(one);
  if (number > 0) {
    await one.feed(what === "pictures" ? mails(number) : [...mails(number), ...HOSTILE]);
    await one.settled();
    await one.command("run", "retry-temporary", "--now");
  }
  return one;
};

const validate = () => {
  const jar = path.join(place, "node_modules/vnu-jar/build/dist/vnu.jar");
  const checked = spawnSync("java", ["-jar", jar, "--format", "text", path.join(place, "html")], { encoding: "utf8" });
  const lines = `${checked.stdout}${checked.stderr}`.split("\n").filter((line) => /: (?:error|info warning|info)/.test(line));
  lines.forEach((line) => complaints.push(`vnu: ${line}`));
  lines.slice(0, 20).forEach((line) => console.log(`  NOT RIGHT  ${line}`));
};

try {
  if (what === "pictures") {
    await pictures(tools, await relay(160));
  } else {
    const empty = await relay(0);
    const full = await relay(what === "all" ? 400 : 10_000);
    if (what === "shots") {
      await shots(tools, { empty, full });
    } else {
      said("every page, as it is looked at");
      await looks(tools, { empty, full });
      said("HTML");
      validate();
      said("what is done on pages");
      await flows(tools, hosts, relay);
    }
  }
} finally {
  await tools.browser.close();
  for (const one of relays) await one.end();
  hosts.end();
}
said(complaints.length === 0 ? "all is right" : `${complaints.length} things are not right`);
fs.writeFileSync(path.join(place, "complaints.txt"), complaints.map((one) => `${one}\n`).join(""));
process.exit(complaints.length === 0 ? 0 : 1);
