// The service worker: the page works without a network after the first visit, and may use threads.
//
// Three kinds of files, each kept as it may change:
//   files of the page       the network's when it answers within 3 s, else the kept ones
//   onnxruntime-web         kept for ever: its version is in the path
//   files of a bundle       kept for ever: the address asks for ?sha256=..; an older one goes
// Every answer gets the two headers without which a browser gives WASM no threads.

const VERSION = 1; // of what is kept here, and how; another one empties the caches
const CACHE = `compress-web-${VERSION}`;
const PATIENCE_MS = 3000;
const RUNTIME = "ort/1.30.0/";
const FILES = [
  "./",
  "capture.js",
  "icon.svg",
  "manifest.webmanifest",
  "offline.js",
  "page.js",
  "sound.js",
  "stopwatch.js",
  "style.css",
  "transcriber.js",
  "view.js",
  "worker.js",
  "streaming/audio.js",
  "streaming/bundle.js",
  "streaming/endpoint.js",
  "streaming/errors.js",
  "streaming/features.js",
  "streaming/fft.js",
  "streaming/mel.js",
  "streaming/recognizer.js",
  "streaming/resample.js",
  "streaming/search/greedy.js",
  "streaming/search/token.js",
  "streaming/session.js",
  "streaming/stream.js",
  "streaming/tensors.js",
  "streaming/tokens.js",
  `${RUNTIME}ort.wasm.min.mjs`,
  `${RUNTIME}ort-wasm-simd-threaded.mjs`,
  `${RUNTIME}ort-wasm-simd-threaded.wasm`,
];

self.addEventListener("install", (event) => {
  self.skipWaiting();
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES)));
});

self.addEventListener("activate", (event) => {
  event.waitUntil(forgetOthers().then(() => self.clients.claim()));
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET" || !request.url.startsWith("http")) return;
  event.respondWith(answer(request).then(isolate));
});

async function forgetOthers() {
  const names = await caches.keys();
  const old = names.filter((name) => name.startsWith("compress-web-") && name !== CACHE);
  await Promise.all(old.map((name) => caches.delete(name)));
}

async function answer(request) {
  const url = new URL(request.url);
  const cache = await caches.open(CACHE);
  const lasting = url.searchParams.has("sha256") || url.pathname.includes(`/${RUNTIME}`);
  if (lasting) return (await cache.match(request)) ?? fetchAndKeep(cache, request, request);
  // ?bundle=.. chooses a bundle, not another page.
  const key = request.mode === "navigate" ? url.origin + url.pathname : request;
  const kept = await cache.match(key);
  const fetched = fetchAndKeep(cache, request, key);
  if (!kept) return fetched;
  const patience = new Promise((resolve) => setTimeout(resolve, PATIENCE_MS, kept));
  return Promise.race([fetched.catch(() => kept), patience]);
}

async function fetchAndKeep(cache, request, key) {
  const response = await fetch(request);
  if (response.ok && response.type !== "opaque") {
    await cache.delete(key, { ignoreSearch: true }); // a bundle's file of another hash
    await cache.put(key, response.clone());
  }
  return response;
}

function isolate(response) {
  if (response.type === "opaque" || response.type === "error" || response.status === 0) {
    return response;
  }
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Resource-Policy", "cross-origin");
  const { status, statusText } = response;
  return new Response(response.body, { status, statusText, headers });
}
