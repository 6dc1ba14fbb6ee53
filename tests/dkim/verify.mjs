// Verifies the message on standard input by mailauth; prints the result. Arguments: where
// mailauth is installed, and the TXT records as JSON.
import { createRequire } from "node:module";

const [place, records] = process.argv.slice(2);
const { dkimVerify } = createRequire(`${place}/`)("mailauth/lib/dkim/verify.js");
const known = JSON.parse(records);
const resolver = async (name, kind) => {
  if (kind === "TXT" && known[name]) return [[known[name]]];
  throw Object.assign(new Error("no such name"), { code: "ENOTFOUND" });
};
const pieces = [];
for await (const piece of process.stdin) pieces.push(piece);
const { results } = await dkimVerify(Buffer.concat(pieces), { resolver });
console.log(results[0]?.status?.result ?? "none");
