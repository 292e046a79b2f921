// Holds the contract to its own standards: `ajv` in strict mode over a file of frames and over the vectors, and
// `@asyncapi/parser` over the AsyncAPI document.
//
//   node check.mjs FRAMES [LEAST]    at least LEAST frames must be in the file
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";
import Ajv from "ajv/dist/2020.js";
import formats from "ajv-formats";

const folder = new URL("../../../src/protocol/schema/", import.meta.url);
const schema = JSON.parse(readFileSync(new URL("draupnir.schema.json", folder), "utf8"));
const ajv = new Ajv({ strict: true, allErrors: false });
formats(ajv);
ajv.addSchema(schema);
const validator = (name) => ajv.getSchema(`${schema.$id}#/$defs/${name}`);

let faults = 0;
const fail = (text) => {
  faults += 1;
  if (faults <= 20) console.error(text);
};

const [path, least = "1"] = process.argv.slice(2);
let count = 0;
for (const line of readFileSync(path, "utf8").split("\n")) {
  if (line === "") continue;
  const { by, as, frame } = JSON.parse(line);
  const validate = validator(as);
  if (!validate(frame)) fail(`${by}: ${ajv.errorsText(validate.errors)}: ${line.slice(0, 300)}`);
  count += 1;
}
if (count < Number(least)) fail(`${count} frames, fewer than ${least}`);

const vectors = JSON.parse(readFileSync(new URL("./vectors.json", import.meta.url), "utf8"));
let valid = 0;
for (const vector of vectors) {
  if (!vector.valid) continue;
  const validate = validator(vector.from === "agent" ? "AgentMessage" : "ConsoleMessage");
  if (!validate(JSON.parse(vector.raw))) fail(`${vector.note}: ${ajv.errorsText(validate.errors)}`);
  valid += 1;
}
const captured = vectors.filter((vector) => vector.note.startsWith("captured"));
console.log(`ajv: ${count} frames, ${valid} valid vectors of ${vectors.length}, ${captured.length} of them captured`);

const source = new URL("asyncapi.yaml", folder);
const { diagnostics, document } = await new Parser().parse(readFileSync(source, "utf8"), { source: source.pathname });
const errors = diagnostics.filter((diagnostic) => diagnostic.severity === 0);
for (const { message, path: place } of errors) fail(`asyncapi.yaml at ${place.join(".")}: ${message}`);
if (document === undefined) fail("asyncapi.yaml is no document");
console.log(`@asyncapi/parser: ${errors.length} errors, ${diagnostics.length - errors.length} hints`);
process.exit(faults === 0 ? 0 : 1);
