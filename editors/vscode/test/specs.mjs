// Every shipped spec has the colours that the language's own reader gives its words. Without circuitdsl it is skipped.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const python = process.env.PYTHON ?? "python3";
const folder = mkdtempSync(join(tmpdir(), "circ-"));
try {
  if (spawnSync(python, ["-c", "import circuitdsl"]).status !== 0) {
    console.log(`skipped: ${python} has no circuitdsl (set PYTHON to one that has)`);
  } else {
    const made = spawnSync(python, [join(here, "expected.py"), folder], { stdio: "inherit" });
    const files = readdirSync(folder).map((name) => join(folder, name));
    const tool = join(here, "..", "node_modules", ".bin", "vscode-tmgrammar-test");
    const options = ["--config", join(here, "..", "package.json"), "--compact", ...files];
    const tested = spawnSync(tool, options, { stdio: "inherit" });
    process.exitCode = made.status || tested.status || (files.length ? 0 : 1);
  }
} finally {
  rmSync(folder, { recursive: true });
}
