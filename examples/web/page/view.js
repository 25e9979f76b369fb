// What the page shows: text, level, speed, errors. It knows elements, and nothing of recognising.

const element = (id) => document.getElementById(id);
const QUIETEST_DB = -60; // the left end of the level meter

/** "12 ms / 15 ms" of [p50, p95] in milliseconds; "–" without. */
export function formatPair(pair) {
  if (!pair) return "–";
  const digits = pair[1] < 10 ? 1 : 0;
  return pair.map((milliseconds) => `${milliseconds.toFixed(digits)} ms`).join(" / ");
}

/** 3723 s -> "62:03". */
export function formatSeconds(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

export function showStatus(text) {
  element("status").textContent = text;
}

/** share in [0, 1]; null while nobody knows how much is left; undefined hides the bar. */
export function showProgress(share) {
  const bar = element("progress");
  bar.classList.toggle("idle", share === undefined);
  if (typeof share === "number") bar.value = share;
  else bar.removeAttribute("value");
}

/** An empty message hides the last one. */
export function showError(message) {
  const box = element("error");
  box.textContent = message;
  box.hidden = !message;
}

export function showModel({ name, precision, numBytes, threads }, offline) {
  const size = `${(numBytes / 1e6).toFixed(1)} MB`;
  const many = threads === 1 ? "1 thread" : `${threads} threads`;
  const kept = offline ? "works offline" : "needs the network to load";
  element("model").textContent = `Model “${name}”, ${precision}, ${size}; ${many}; ${kept}.`;
}

export function showPiece(chunkSeconds) {
  element("piece").textContent = ` (${Math.round(chunkSeconds * 1000)} ms)`;
}

export function showPartial(text) {
  element("partial").textContent = text;
  element("hint").hidden = true;
  scrollDown();
}

export function addFinal(text) {
  const line = document.createElement("li");
  line.textContent = text;
  element("finals").append(line);
  element("partial").textContent = "";
  element("hint").hidden = true;
  for (const id of ["copy", "clear"]) element(id).disabled = false;
  scrollDown();
}

/** All finished sentences, one a line. */
export function finishedText() {
  return [...element("finals").children].map((line) => line.textContent).join("\n");
}

export function clearText() {
  element("finals").replaceChildren();
  element("partial").textContent = "";
  element("hint").hidden = false;
  for (const id of ["copy", "clear"]) element(id).disabled = true;
}

/** level: root mean square of samples in [-1, 1]; the meter is in decibels. */
export function showLevel(level) {
  const decibels = 20 * Math.log10(Math.max(level, 1e-6));
  const share = Math.min(1, Math.max(0, 1 - decibels / QUIETEST_DB));
  element("level").firstElementChild.style.transform = `scaleX(${share.toFixed(3)})`;
  element("level").setAttribute("aria-valuenow", Math.round(100 * share));
}

export function showStatistics({ seconds, realTimeFactor, chunk, delay }) {
  element("factor").textContent = realTimeFactor.toFixed(3);
  element("chunk").textContent = formatPair(chunk);
  element("delay").textContent = formatPair(delay);
  element("seconds").textContent = formatSeconds(seconds);
}

/** What can be pressed now: "loading", "idle", "listening" or "file". */
export function showState(state) {
  const button = element("microphone");
  const active = state === "listening" || state === "file";
  button.disabled = state === "loading";
  button.classList.toggle("stop", active);
  button.textContent = active ? "Stop" : "Start microphone";
  element("choose").disabled = state !== "idle";
  element("splits").disabled = active;
  document.body.dataset.state = state;
  if (!active) showLevel(0);
}

function scrollDown() {
  const box = element("transcript");
  box.scrollTop = box.scrollHeight;
}
