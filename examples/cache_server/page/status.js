"use strict";

// The server sends the page with its figures. Now and then it is fetched anew, and the figures are
// exchanged. What the server sends is parsed as a document that runs no script.

const EVERY = 2000;
const byId = (id) => document.getElementById(id);

// A URL with a password in it, as somebody may have opened it, cannot be fetched.
const address = new URL("status", location);
address.username = "";
address.password = "";

let paused = false;
let shown = Date.now();

/** `spoken` is read out by screen readers where it changes, `text` is only shown. */
function state(spoken, text = "", bad = false) {
  if (byId("state").textContent !== spoken) byId("state").textContent = spoken;
  byId("detail").textContent = text;
  byId("state").className = bad ? "bad" : "";
}

/** Exchanges what each part shows, and leaves the parts: who has scrolled in one stays there. */
function show(page) {
  for (const id of ["since", "artifacts", "load", "store", "areas", "requests", "failures"]) {
    const [old, fresh] = [byId(id), page.getElementById(id)];
    if (old && fresh) old.replaceChildren(...document.importNode(fresh, true).childNodes);
  }
}

async function refresh() {
  if (paused || document.hidden) return;
  let page;
  try {
    const answer = await fetch(address, { cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (answer.ok) page = new DOMParser().parseFromString(await answer.text(), "text/html");
  } catch {
    page = undefined;
  }
  if (paused) return;
  if (!page) {
    const age = Math.round((Date.now() - shown) / 1000);
    state("The server does not answer.", `What is shown is ${age} s old.`, true);
    return;
  }
  shown = Date.now();
  show(page);
  state("Up.", `Refreshes every ${EVERY / 1000} seconds.`);
}

async function run() {
  for (;;) {
    await refresh();
    await new Promise((next) => setTimeout(next, EVERY));
  }
}

byId("pause").hidden = false;
byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  byId("pause").textContent = paused ? "Go on" : "Pause";
  if (paused) state("Paused.");
  else refresh();
});
document.addEventListener("visibilitychange", refresh);
run();
