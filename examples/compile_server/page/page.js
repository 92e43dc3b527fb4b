"use strict";

// The numbers come from /status.json. Whatever they hold is put on the page as text, never as HTML.

const EVERY = 2000;
const MINUTES = 5;
const LOST = "The server does not answer.";
const SOURCES = ["memory", "disk", "remote", "compiled", "joined", "other"];
const HITS = ["memory", "disk", "remote", "write_behind"];

const byId = (id) => document.getElementById(id);
const known = (source) => (SOURCES.includes(source) ? source : "other");

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function drawn(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// How numbers are written.

const whole = new Intl.NumberFormat("en");
const count = (number) => whole.format(Math.round(number));

function millis(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 1000) return `${(value / 1000).toFixed(value < 10000 ? 1 : 0)} s`;
  if (value >= 10) return `${value.toFixed(0)} ms`;
  return value >= 0.1 ? `${value.toFixed(1)} ms` : `${(value * 1000).toFixed(0)} µs`;
}

function duration(seconds) {
  const size = Math.abs(seconds);
  if (size < 120) return `${seconds.toFixed(size < 10 ? 1 : 0)} s`;
  if (size < 7200) return `${(seconds / 60).toFixed(0)} min`;
  return size < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86400).toFixed(1)} days`;
}

function bytes(size) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${size.toFixed(unit && size < 10 ? 1 : 0)} ${units[unit]}`;
}

// Tables. Each is built once, so that readers who have scrolled in one stay where they are.

function table(id, columns, rows) {
  const whole = byId(id);
  if (!whole.tHead) {
    const head = whole.createTHead().insertRow();
    for (const [title, kind] of columns) {
      const cell = element("th", title, kind);
      cell.scope = "col";
      head.append(cell);
    }
    whole.createTBody();
  }
  const body = element("tbody");
  for (const row of rows) {
    const line = body.insertRow();
    row.forEach((value, column) => {
      const { text, kind, mark, code } = Object(value) === value ? value : { text: value };
      const cell = element("td", undefined, [columns[column][1], kind].filter(Boolean).join(" "));
      if (mark) cell.append(element("span", undefined, `mark fill-${mark}`));
      cell.append(code ? element("code", text) : String(text));
      line.append(cell);
    });
  }
  if (!rows.length) {
    const cell = body.insertRow().insertCell();
    cell.colSpan = columns.length;
    cell.textContent = "None yet.";
  }
  whole.tBodies[0].replaceWith(body);
}

// Charts: time runs to the right, the newest window at the right edge.

const WIDTH = 900;
const HEIGHT = 220;
const LEFT = 56;
const BOTTOM = 24;

function frame(id, label, ticks, minutes) {
  const box = byId(id);
  const wide = Math.max(box.clientWidth, 300);
  const svg = drawn("svg", {
    viewBox: `0 0 ${wide} ${HEIGHT}`,
    role: "img",
    "aria-label": label,
  });
  for (const [height, text] of ticks) {
    const y = place(height);
    svg.append(drawn("line", { class: "grid", x1: LEFT, x2: wide, y1: y, y2: y }));
    svg.append(drawn("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, text));
  }
  for (let ago = 0; ago <= minutes; ago += 1) {
    const x = LEFT + (wide - LEFT) * (1 - ago / minutes);
    const text = ago === 0 ? "now" : `${ago} min ago`;
    const anchor = ago === 0 ? "end" : ago === minutes ? "start" : "middle";
    if (wide > 600 || ago === 0 || ago === minutes) {
      svg.append(drawn("text", { x, y: HEIGHT - 6, "text-anchor": anchor }, text));
    }
  }
  box.replaceChildren(svg);
  return { svg, across: (share) => LEFT + (wide - LEFT) * share };
}

/** The height on the page of a share of the chart. */
const place = (share) => 8 + (HEIGHT - BOTTOM - 8) * (1 - share);

/** A round number that is no smaller. */
function rounded(most) {
  const power = 10 ** Math.floor(Math.log10(Math.max(most, 1)));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= most);
}

function drawAnswers(windows, seconds, used) {
  const rate = (window, source) => (window.answers[source]?.count ?? 0) / seconds;
  const total = (window) => used.reduce((sum, source) => sum + rate(window, source), 0);
  const most = rounded(Math.max(2, ...windows.map(total)));
  const ticks = [0, 0.5, 1].map((share) => [share, String(most * share)]);
  const rates = windows.map(total);
  const label = `Answers a second over ${MINUTES} minutes; now ${count(rates.at(-1) ?? 0)}, at most ${count(Math.max(0, ...rates))}.`;
  const { svg, across } = frame("answers", label, ticks, MINUTES);
  const width = Math.max(1, (across(1) - across(0)) / windows.length + 0.5);
  windows.forEach((window, number) => {
    let below = 0;
    for (const source of used) {
      const share = rate(window, source) / most;
      if (share === 0) continue;
      const top = place(below + share);
      svg.append(drawn("rect", {
        class: `fill-${source}`,
        x: across(number / windows.length),
        y: top,
        width,
        height: Math.max(place(below) - top, 0.5),
      }));
      below += share;
    }
  });
}

function drawTimes(windows, used) {
  const times = used.flatMap((source) => windows.map((window) => window.answers[source]?.p99_ms ?? 0));
  const most = Math.max(1, ...times);
  const high = Math.ceil(Math.log10(most));
  const low = Math.min(high - 1, -2);
  const height = (value) => (Math.log10(Math.max(value, 10 ** low)) - low) / (high - low);
  const ticks = [];
  for (let power = low; power <= high; power += 1) ticks.push([(power - low) / (high - low), millis(10 ** power)]);
  const label = `99th percentile of the time to answer over ${MINUTES} minutes, by source, on a logarithmic scale; the numbers are in the table below.`;
  const { svg, across } = frame("times", label, ticks, MINUTES);
  for (const source of used) {
    let path = "";
    let begins = true;
    windows.forEach((window, number) => {
      const value = window.answers[source]?.p99_ms;
      if (value === undefined) {
        begins = true;
        return;
      }
      const x = across((number + 0.5) / windows.length);
      // A line to where it begins is drawn as a dot.
      path += begins ? `M${x - 1} ${place(height(value))}h2` : `L${x} ${place(height(value))}`;
      begins = false;
    });
    svg.append(drawn("path", { class: `line stroke-${source}`, d: path }));
  }
}

// Numbers over all windows.

/** The windows with every source of the server's under one of the page's names. */
function merged(windows) {
  return windows.map((window) => {
    const answers = {};
    for (const [name, times] of Object.entries(window.answers)) {
      const source = known(name);
      const before = answers[source];
      answers[source] = before
        ? { count: before.count + times.count, p50_ms: Math.max(before.p50_ms, times.p50_ms), p99_ms: Math.max(before.p99_ms, times.p99_ms) }
        : times;
    }
    return { answers, errors: window.errors };
  });
}

function figures(status) {
  const { answers, errors } = status.total;
  const all = Object.values(answers).reduce((sum, source) => sum + source.count, 0);
  const hits = HITS.reduce((sum, source) => sum + (answers[source]?.count ?? 0), 0);
  const saved = status.tiers.reduce((sum, tier) => sum + tier.saved_seconds, 0);
  const rows = [
    ["Answers", count(all)],
    ["Hit rate", all ? `${((100 * hits) / all).toFixed(1)} %` : "–"],
    ["Errors", count(errors)],
    ["Compiles running", count(status.running_compiles)],
    ["Compiles waiting", count(status.queued_compiles)],
    ["Time saved since the start", duration(saved)],
  ];
  const made = rows.map(([name, value]) => {
    const pair = element("div");
    pair.append(element("dt", name), element("dd", value));
    return pair;
  });
  byId("figures").replaceChildren(...made);
}

/** What the circuit breakers of a tier do, where it has any. */
function breakers({ label, reads_open: reads, writes_open: writes }) {
  const names = [reads && "reads", writes && "writes"].filter(Boolean);
  if (names.length) return { text: `open for ${names.join(" and ")}`, kind: "bad" };
  return ["memory", "disk"].includes(label) ? "–" : { text: "closed", kind: "good" };
}

function tiers(status) {
  const columns = [
    ["Tier"], ["Hits", "number"], ["Misses", "number"], ["Failed", "number"], ["Median", "number"],
    ["99 %", "number"], ["Entries", "number"], ["Size", "number"], ["Time saved", "number"], ["Breaker"],
  ];
  const rows = status.tiers.map((tier) => [
    tier.label,
    count(tier.hits),
    count(tier.misses),
    { text: count(tier.failed), kind: tier.failed ? "bad" : "" },
    tier.latency.count ? millis(tier.latency.p50 * 1000) : "–",
    tier.latency.count ? millis(tier.latency.p99 * 1000) : "–",
    tier.entries ? count(tier.entries) : "–",
    tier.bytes ? bytes(tier.bytes) : "–",
    duration(tier.saved_seconds),
    breakers(tier),
  ]);
  table("tiers", columns, rows);
}

/** The header Server-Timing for people: 'disk;desc="miss";dur=1.25' is "disk miss 1.3 ms". */
function steps(timing) {
  const written = (timing ?? "").split(",").map((step) => {
    const [name, ...parts] = step.trim().split(";");
    const part = (start) => parts.find((text) => text.startsWith(start))?.slice(start.length);
    const outcome = part("desc=")?.replaceAll('"', "");
    const took = part("dur=");
    return [name, outcome, took && millis(Number(took))].filter(Boolean).join(" ");
  });
  return written.join(", ") || "–";
}

function requests(status) {
  const columns = [["Ago", "number"], ["Target"], ["Status", "number"], ["From"], ["Time", "number"], ["Key"], ["Steps"]];
  const rows = status.requests.map((request) => [
    duration(request.seconds_ago),
    request.target,
    { text: request.status, kind: request.status >= 400 ? "bad" : "" },
    request.source ? { text: request.source, mark: known(request.source) } : "–",
    millis(request.millis),
    { text: request.key ? `${request.key}…` : "–", code: Boolean(request.key) },
    steps(request.timing),
  ]);
  table("requests", columns, rows);
}

function show(status) {
  const wanted = Math.round((MINUTES * 60) / status.window_seconds);
  const windows = merged(status.windows).slice(-wanted);
  while (windows.length < wanted) windows.unshift({ answers: {}, errors: 0 });
  const used = SOURCES.filter((source) => windows.some((window) => window.answers[source]));
  figures(status);
  drawAnswers(windows, status.window_seconds, used);
  drawTimes(windows, used);
  byId("legend").replaceChildren(...used.map((source) => {
    const item = element("li");
    item.append(element("span", undefined, `mark fill-${source}`), source);
    return item;
  }));
  const columns = [["From"], ["Answers", "number"], ["Median", "number"], ["99 %", "number"]];
  table("sources", columns, Object.entries(status.total.answers).map(([source, times]) => [
    { text: source, mark: known(source) }, count(times.count), millis(times.p50_ms), millis(times.p99_ms),
  ]));
  tiers(status);
  requests(status);
}

let paused = false;
let latest;
let shown;
/** The number of the last refresh that was begun: only its answer is shown. */
let begun = 0;

/** `spoken` is read out by screen readers where it changes, `text` is only shown. */
function state(spoken, text = "") {
  if (byId("state").textContent !== spoken) byId("state").textContent = spoken;
  byId("detail").textContent = text;
  byId("state").className = spoken === LOST ? "bad" : "";
}

async function refresh() {
  if (paused || document.hidden) return;
  begun += 1;
  const own = begun;
  let status;
  try {
    const answer = await fetch("status.json", { cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (answer.ok) status = await answer.json();
  } catch {
    status = undefined;
  }
  if (paused || own !== begun) return;
  if (!status) {
    state(LOST, shown ? `What is shown is ${duration((Date.now() - shown) / 1000)} old.` : "");
    return;
  }
  latest = status;
  shown = Date.now();
  show(status);
  state("Up.", `For ${duration(status.uptime_seconds)}. Refreshes every ${EVERY / 1000} seconds.`);
}

async function run() {
  for (;;) {
    await refresh();
    await new Promise((next) => setTimeout(next, EVERY));
  }
}

byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  byId("pause").textContent = paused ? "Go on" : "Pause";
  if (paused) state("Paused.");
  else refresh();
});
addEventListener("resize", () => latest && show(latest));
document.addEventListener("visibilitychange", refresh);
run();
