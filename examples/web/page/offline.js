// The page's side of service.js: wait until it keeps the files; reload once where threads want it.

const RELOADED = "reloaded-for-threads";

/**
 * Resolves to true once service.js answers this page's requests, so that what is fetched from now
 * on is kept; to false where the browser has no service workers or this one did not install.
 *
 * @param {boolean} threads whether the page is to have WASM threads: it is loaded once more where
 *     the host's answers do not allow them, as those of service.js do
 */
export async function keepOffline(threads) {
  if (!navigator.serviceWorker) return false;
  try {
    const registration = await navigator.serviceWorker.register("service.js");
    if (!navigator.serviceWorker.controller) await takeOver(registration);
  } catch {
    return false; // a private window, or a host that gave no file: the page runs without
  }
  return threads && reloadForThreads() ? new Promise(() => {}) : true;
}

function takeOver(registration) {
  return new Promise((resolve, reject) => {
    navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true });
    const worker = registration.installing ?? registration.waiting ?? registration.active;
    worker.addEventListener("statechange", () => {
      if (worker.state === "redundant") reject(new Error("service.js did not install"));
    });
    // Shift and reload shows a page that no service worker will take over before the next visit.
    if (worker.state === "activated") resolve();
  });
}

/** Once a session, so that a host or browser that never allows threads makes no loop. */
function reloadForThreads() {
  if (self.crossOriginIsolated || sessionStorage.getItem(RELOADED)) return false;
  sessionStorage.setItem(RELOADED, "1");
  location.reload();
  return true;
}
