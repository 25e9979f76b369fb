// Drives examples/web in headless Chromium: node browser.mjs < task.json, an answer in JSON.
//
// task: {web, python, chromium, bundle, profile, scenario, ...}; SCENARIOS has the rest. The script
// starts serve.py on a free port, and ends it, so that a scenario may go on without a server. With
// `root` the server is one that only knows files, in that folder, and sends no headers of ours.

import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const task = JSON.parse(readFileSync(0, "utf8"));
const require = createRequire(join(task.web, "package.json"));
const { chromium } = require("playwright-core");
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const WAIT_MS = 60000;

/** A server, ready: {address, stop()}. */
async function serve() {
  const ours = [join(task.web, "serve.py"), task.bundle, "--port", "0"];
  const plain = ["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", task.root];
  const child = spawn(task.python, task.root ? plain : ours);
  const address = await new Promise((resolve, reject) => {
    child.stdout.on("data", (data) => {
      const port = /(?:port |localhost:)(\d+)/.exec(data);
      if (port) resolve(`http://localhost:${port[1]}`);
    });
    child.on("exit", () => reject(new Error("the server ended")));
  });
  const ended = new Promise((resolve) => child.on("exit", resolve));
  return { address, stop: () => (child.kill(), ended) };
}

/** task.wav is the microphone; task.denied: there is one, and nobody allows it. */
function launch() {
  const device = "--use-fake-device-for-media-stream";
  const sound = `--use-file-for-fake-audio-capture=${task.wav}%noloop`;
  const heard = task.wav ? [device, "--use-fake-ui-for-media-stream", sound] : [];
  const microphone = task.denied ? [device] : heard;
  return chromium.launchPersistentContext(task.profile, {
    executablePath: task.chromium,
    args: [...FLAGS, ...microphone],
    viewport: task.viewport ?? { width: 390, height: 844 },
    colorScheme: task.colors ?? "light",
    deviceScaleFactor: task.scale ?? 1,
  });
}

async function openPage(page, address) {
  await page.goto(`${address}/${task.query ?? ""}`);
  await page.waitForFunction(
    () => document.body.dataset.state === "idle" || !document.getElementById("error").hidden,
    null,
    { timeout: WAIT_MS },
  );
}

const shown = (page, id) => page.locator(`#${id}`).innerText();

async function describe(page) {
  const ids = ["status", "error", "model", "finals", "partial", "factor", "chunk", "delay", "seconds"];
  const texts = await Promise.all(ids.map((id) => page.locator(`#${id}`).textContent()));
  const isolated = await page.evaluate(() => self.crossOriginIsolated);
  return { ...Object.fromEntries(ids.map((id, i) => [id, texts[i]])), isolated };
}

/** Begins to gather the tokens of what is heard next; heard(page) waits for its end. */
function listenTo(page) {
  return page.evaluate(() => {
    const tokens = [];
    const add = ({ detail }) => tokens.push(...detail.tokens.map(({ index }) => index));
    document.addEventListener("transcript", add);
    self.whenHeard = new Promise((resolve) => {
      const end = () => {
        document.removeEventListener("transcript", add);
        resolve(tokens);
      };
      document.addEventListener("finished", end, { once: true });
    });
    return true; // and not the promise, which evaluate() would wait for
  });
}

const heard = (page) => page.evaluate(() => self.whenHeard);

/** Puts a sound file through the file button; resolves to the ids of its tokens. */
async function transcribe(page, file) {
  await listenTo(page);
  await page.locator("#file").setInputFiles(file);
  return heard(page);
}

const SCENARIOS = {
  /** {files}: the tokens of each, without end-points. */
  async files(page) {
    await page.locator("#splits").uncheck();
    const tokens = [];
    const factors = [];
    for (const file of task.files) {
      tokens.push(await transcribe(page, file));
      factors.push([await shown(page, "seconds"), Number(await shown(page, "factor"))]);
    }
    return { tokens, factors };
  },

  /** {wav, seconds}: what was on the page while it listened, and after. */
  async microphone(page) {
    await page.locator("#microphone").focus();
    await page.keyboard.press("Enter"); // by keyboard, as someone without a mouse would
    await page.waitForFunction(() => document.body.dataset.state === "listening");
    await listenTo(page);
    await page.waitForTimeout(task.seconds * 1000);
    const listening = await describe(page);
    listening.focus = await page.evaluate(() => document.activeElement.id);
    if (task.picture) await page.screenshot({ path: task.picture });
    await page.locator("#microphone").click();
    return { listening, tokens: await heard(page) };
  },

  /** Nothing but what the page says after loading, and after pressing the microphone's button. */
  async look(page) {
    const button = page.locator("#microphone");
    if (await button.isEnabled()) {
      await button.click();
      await page.waitForTimeout(1000);
    }
    if (task.picture) await page.screenshot({ path: task.picture, fullPage: true });
    return {};
  },

  /** {file}: the tokens before and after the server has gone and the page was loaded again. */
  async offline(page, server) {
    const online = await transcribe(page, task.files[0]);
    await server.stop();
    await openPage(page, server.address);
    return { online, offline: await transcribe(page, task.files[0]) };
  },

  /** {files}: what the page says to each. */
  async refuse(page) {
    const errors = [];
    for (const file of task.files) {
      await page.locator("#file").setInputFiles(file);
      await page.locator("#error").waitFor({ state: "visible" });
      errors.push(await shown(page, "error"));
      await page.evaluate(() => (document.getElementById("error").hidden = true));
    }
    return { errors };
  },

  /** {viewport}: what does not fit, and what a finger would miss. */
  async layout(page) {
    const small = await page.evaluate(() => {
      const pressed = document.querySelectorAll("button, summary, label");
      const boxes = [...pressed].map((node) => [node.textContent.trim(), node.getBoundingClientRect()]);
      return boxes.filter(([, box]) => box.height < 44 || box.width < 44).map(([name]) => name);
    });
    const overflow = await page.evaluate(
      () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
    );
    const reached = [];
    for (let i = 0; i < 6; i++) {
      await page.keyboard.press("Tab");
      reached.push(
        await page.evaluate(() => {
          const outline = getComputedStyle(document.activeElement).outlineStyle;
          return [document.activeElement.id || document.activeElement.localName, outline];
        }),
      );
    }
    return { small, overflow, reached, tree: await page.locator("body").ariaSnapshot() };
  },

  /** {files, picture}: a finished transcript as a picture. */
  async picture(page) {
    for (const file of task.files) await transcribe(page, file);
    await page.screenshot({ path: task.picture, fullPage: true });
    return {};
  },
};

const server = await serve();
const context = await launch();
try {
  const page = context.pages()[0] ?? (await context.newPage());
  const faults = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (said) => said.type() === "error" && faults.push(said.text()));
  await openPage(page, server.address);
  const found = await SCENARIOS[task.scenario](page, server);
  console.log(JSON.stringify({ ...found, after: await describe(page), faults }));
} finally {
  await context.close();
  await server.stop();
}
