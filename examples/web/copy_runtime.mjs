// Copies onnxruntime-web out of node_modules into page/ort/VERSION, for pages that are only files.
//
//     node copy_runtime.mjs        npm ci calls it
//
// Of the package's 100 MB the page needs three files: the JavaScript for WASM alone, and the WASM
// with its loader. The version is in the path, so that a browser may keep them for ever.

import { cpSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const source = join(here, "node_modules", "onnxruntime-web");
const { version } = JSON.parse(readFileSync(join(source, "package.json"), "utf8"));
const target = join(here, "page", "ort", version);

rmSync(dirname(target), { recursive: true, force: true });
mkdirSync(target, { recursive: true });
for (const name of [
  "ort.wasm.min.mjs",
  "ort-wasm-simd-threaded.mjs",
  "ort-wasm-simd-threaded.wasm",
]) {
  cpSync(join(source, "dist", name), join(target, name));
}
console.log(`onnxruntime-web ${version} is in page/ort/${version}`);
