// Screenshots: to be looked at, and those of the README.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";

import { tab } from "./browser.mjs";
import { pagesOf } from "./looks.mjs";

export const shots = async (tools, relays) => {
  const place = path.join(tools.place, "shots");
  fs.rmSync(place, { recursive: true, force: true });
  fs.mkdirSync(place, { recursive: true });
  for (const [kind, relay] of Object.entries(relays)) {
    const pages = await pagesOf(relay);
    for (const width of [1280, 768, 320]) {
      for (const dark of [false, true]) {
        const page = await tab(tools, relay.origin, { width, dark });
        for (const [name, url] of Object.entries(pages)) {
          await page.goto(relay.origin + url);
          const file = [name.replaceAll(" ", "-"), width, dark ? "dark" : "light", kind].join("_");
          await page.screenshot({ path: path.join(place, `${file}.png`), fullPage: true });
        }
        await page.context().close();
      }
    }
  }
};

// With few colours, so that they are small.
export const pictures = async (tools, relay) => {
  relay.past();
  const pages = await pagesOf(relay);
  fs.mkdirSync("packaging/doc", { recursive: true });
  for (const [name, file, height] of [["overview", "overview", 1130], ["group", "failures", 700]]) {
    const page = await tab(tools, relay.origin, { width: 1120, height });
    await page.goto(relay.origin + pages[name]);
    const picture = path.join("packaging/doc", `${file}.png`);
    await page.screenshot({ path: picture });
    await page.context().close();
    spawnSync("pngquant", ["--force", "--ext", ".png", "48", picture], { stdio: "inherit" });
  }
};
