// The page: buttons and files in, text out; worker.js recognises.
//
//     ?bundle=URL       the folder of a bundle; ./bundle/ without
//     ?precision=fp32   one of the bundle's; its default without
//     ?threads=2        WASM threads; 1 without: two were slower on chunks of these models
//
// For a page around this one, document gets "transcript" events whose detail is a final message of
// transcriber.js: {text, tokens: [{index, frame}], start, seconds}.

import { keepOffline } from "./offline.js";
import { Microphone, readSound } from "./sound.js";
import * as view from "./view.js";

const SLOW_MS = 2000; // of delay, from which on the page says that the device does not keep up
const element = (id) => document.getElementById(id);
const options = new URLSearchParams(location.search);
const worker = new Worker("worker.js", { type: "module" });
let model = null; // what worker.js said when it was ready
let microphone = null;
let state = "loading";
let offline = false;

const MESSAGES = {
  loading: ({ name, bytes }) => {
    view.showStatus(`Loading ${name}, ${(bytes / 1e6).toFixed(1)} MB so far…`);
  },
  ready: (message) => {
    model = message;
    view.showModel(model, offline);
    view.showPiece(model.chunkSeconds);
    enter("idle", "Ready");
  },
  level: ({ level }) => view.showLevel(level),
  partial: ({ text }) => view.showPartial(text),
  final: (message) => {
    view.addFinal(message.text);
    document.dispatchEvent(new CustomEvent("transcript", { detail: message }));
  },
  statistics: (message) => {
    view.showStatistics(message);
    const slow = state === "listening" && message.delay?.[0] > SLOW_MS;
    if (slow) view.showStatus("Listening; this device is slower than speech, text comes late");
  },
  progress: ({ share }) => view.showProgress(share),
  done: finish,
  error: fail,
};

worker.onmessage = ({ data }) => MESSAGES[data.type](data);
worker.onerror = () => fail({ message: "the program did not load: reload the page", known: true });

function enter(next, status) {
  state = next;
  view.showState(state);
  view.showStatus(status);
  view.showProgress(state === "loading" ? null : undefined);
}

async function finish() {
  const heard = element("finals").childElementCount > 0;
  await closeMicrophone();
  enter("idle", heard ? "Ready" : "Ready; nothing was understood");
  document.dispatchEvent(new CustomEvent("finished"));
}

async function fail({ message, known }) {
  view.showError(known ? message : `A fault of this program: ${message}`);
  await closeMicrophone();
  if (model) enter("idle", "Ready");
  else {
    view.showStatus("Nothing is loaded");
    view.showProgress(undefined);
  }
}

async function closeMicrophone() {
  const closing = microphone;
  microphone = null;
  await closing?.close();
}

/** Runs a call of the user's; what it throws is shown. */
async function attempt(call) {
  view.showError("");
  try {
    await call();
  } catch (error) {
    await fail({ message: error.message, known: error.name === "AudioError" });
  }
}

async function startMicrophone() {
  state = "opening"; // the button stays as it is: a disabled one would lose the keyboard's focus
  view.showStatus("Waiting for the microphone…");
  microphone = await Microphone.open((message) => {
    view.showError(message);
    microphone?.stop();
  });
  const { port, sampleRate } = microphone;
  const message = { type: "listen", port, sampleRate, splits: element("splits").checked };
  worker.postMessage(message, [port]);
  enter("listening", "Listening");
}

async function transcribeFile(file) {
  if (state !== "idle" || !file) return;
  const { samples, sampleRate } = await readSound(file, model.sampleRate);
  enter("file", `Transcribing ${file.name}`);
  const message = { type: "file", samples, sampleRate, splits: element("splits").checked };
  worker.postMessage(message, [samples.buffer]);
}

function stop() {
  if (state === "opening") return;
  view.showStatus("Finishing…");
  if (state === "listening") microphone?.stop();
  else worker.postMessage({ type: "stop" });
}

element("microphone").onclick = () => attempt(state === "idle" ? startMicrophone : stop);
element("choose").onclick = () => element("file").click();
element("file").onchange = ({ target }) => {
  attempt(() => transcribeFile(target.files[0])).then(() => (target.value = ""));
};
element("copy").onclick = () =>
  attempt(async () => {
    await navigator.clipboard.writeText(view.finishedText());
    view.showStatus("Copied");
  });
element("clear").onclick = view.clearText;

document.ondragover = (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
};
document.ondragleave = () => document.body.classList.remove("dropping");
document.ondrop = (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  attempt(() => transcribeFile(event.dataTransfer.files[0]));
};

enter("loading", "Loading the program, 4 MB once…");
const threads = Math.max(1, Number(options.get("threads")) || 1);
offline = await keepOffline(threads > 1);
worker.postMessage({
  type: "open",
  address: new URL(options.get("bundle") ?? "./bundle/", location.href).href,
  precision: options.get("precision") ?? "",
  threads,
});
