// The service worker's side of the page: wait until it keeps the files, and reload once for threads.

const RELOADED = "reloaded-for-threads";

/**
 * Resolves to true once service.js answers this page's requests, so that what is fetched from now
 * on is kept; to false where the browser has no service workers or this one did not install.
 */
export async function keepOffline() {
  if (!navigator.serviceWorker) return false;
  try {
    const registration = await navigator.serviceWorker.register("service.js");
    if (!navigator.serviceWorker.controller) await takeOver(registration);
  } catch {
    return false; // a private window, or a host that gave no file: the page runs without
  }
  return reloadForThreads() ? new Promise(() => {}) : true;
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

/** A host that sends no headers: the page that service.js answers has them. True while reloading. */
function reloadForThreads() {
  if (self.crossOriginIsolated || sessionStorage.getItem(RELOADED)) return false;
  sessionStorage.setItem(RELOADED, "1");
  location.reload();
  return true;
}
