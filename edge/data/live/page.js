/** The live page: draws what `edge-run --serve` sends (edge/outputs/serve.py). */

const SIGNAL_S = 5;
const SILENT_S = 3; // without a new sample the signal is no longer called live
const GAP_S = 0.25; // nothing is drawn across it
const AGAIN_MS = 5000; // until a server that refused is asked again
const SVG = "http://www.w3.org/2000/svg";
const AXES = ["x", "y", "z"];

const $ = (id) => document.getElementById(id);

/** Minutes and seconds since the stream's start. */
function clock(seconds) {
  const tenths = Math.round(Math.abs(seconds) * 10);
  const rest = ((tenths % 600) / 10).toFixed(1).padStart(4, "0");
  return `${seconds < 0 ? "-" : ""}${Math.floor(tenths / 600)}:${rest}`;
}

/** A duration in words. */
function lasting(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

const percent = (share) =>
  share > 0 && share < 0.005 ? "< 1 %" : `${(100 * share).toFixed(0)} %`;
const ms = (seconds) => `${(1000 * seconds).toFixed(0)} ms`;
const times = (n, once) => (n === 1 ? `${once} once` : `${once} ${n} times`);

function write(id, text) {
  // A live region is read out for every change, so that there is none without one.
  if ($(id).textContent !== text) $(id).textContent = text;
}

function element(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

function row(className, ...cells) {
  return element("tr", className, ...cells.map((cell) => element("td", "", cell)));
}

/** State of the connection and of the stream, in one line. */
class Status {
  #connection = "connecting"; // "open", "lost", "hidden"
  #isOver = false;
  #sampledAt = null;

  constructor() {
    setInterval(() => this.#write(), 500);
  }

  set connection(state) {
    this.#connection = state;
    this.#write();
  }

  sampled() {
    this.#sampledAt = performance.now();
    this.#write();
  }

  over(isOver) {
    this.#isOver = isOver;
    this.#write();
  }

  get isOver() {
    return this.#isOver;
  }

  #write() {
    const [text, look] = this.#said();
    write("status", text);
    $("status").className = look;
  }

  #said() {
    if (this.#isOver) return ["The run has ended", ""];
    if (this.#connection === "lost") return ["No connection to edge-run; trying again", "warn"];
    if (this.#connection !== "open") return ["Connecting", ""];
    if (this.#sampledAt === null) return ["Waiting for the first samples", ""];
    const silentS = (performance.now() - this.#sampledAt) / 1000;
    if (silentS > SILENT_S) return [`Nothing has come for ${lasting(silentS)}`, "warn"];
    return ["Live", "live"];
  }
}

function drawRun({ title, is_over: isOver, windows, window: newest, events, link }) {
  status.over(isOver);
  write("title", title);
  if (!newest) return;
  document.title = `${newest.label ?? "no label"} · aura-edge live`;
  drawNow(newest, windows);
  drawScores(newest);
  drawEvents(events);
  drawLink(link);
}

function drawNow(newest, windows) {
  const { label, confidence, at_s: atS, since_s: sinceS, truth } = newest;
  write("label", label ?? "no label");
  $("label").classList.toggle("none", newest.is_none);
  const parts = confidence === null ? [] : [`confidence ${percent(confidence)}`];
  if (label) parts.push(`since ${clock(sinceS)}, for ${lasting(Math.max(0, atS - sinceS))}`);
  write("said", parts.join(" · "));
  $("truth").hidden = truth === null;
  write("truth", `truth: ${truth}`);
  $("why-not").hidden = newest.why_not === null;
  write("why-not", newest.why_not ?? "");
  write(
    "window",
    `Window ${windows}, until ${clock(atS)}: ${newest.rate_hz.toFixed(1)} Hz, ` +
      `${percent(newest.missing)} missing, encoder ${newest.inference_ms.toFixed(1)} ms`,
  );
}

function drawScores({ scores }) {
  const best = Math.max(...scores.map(([, probability]) => probability));
  $("scores").replaceChildren(
    ...scores.map(([label, probability]) => {
      const track = element("div", "track", element("div", "fill"));
      track.firstChild.style.width = `${100 * probability}%`;
      track.setAttribute("aria-hidden", "true");
      const name = element("span", "", label);
      name.title = label;
      const look = probability === best ? "best" : "";
      return element("li", look, name, element("span", "", percent(probability)), track);
    }),
  );
}

function drawEvents(events) {
  $("events").hidden = !events.length;
  $("events")
    .querySelector("tbody")
    .replaceChildren(
      ...events.map((event) =>
        row(
          event.ended ? "" : "lasts",
          event.label,
          clock(event.start_s),
          lasting(event.end_s - event.start_s) + (event.ended ? "" : " so far"),
          percent(event.confidence),
        ),
      ),
    );
}

function drawLink(link) {
  $("link").hidden = !link;
  if (!link) return;
  const { streams, details, reconnects, stalls, skipped, unpaired } = link;
  $("link")
    .querySelector("tbody")
    .replaceChildren(
      ...streams.map((stream) =>
        row(
          "",
          stream.kind,
          stream.rate_hz === null ? "not yet known" : `${stream.rate_hz.toFixed(2)} Hz`,
          stream.drift_ppm === null ? "–" : `${stream.drift_ppm.toFixed(0)} ppm`,
          `${(100 * stream.lost_fraction).toFixed(2)} % (${stream.lost})`,
          ms(stream.lag_p50_s),
          ms(stream.lag_p95_s),
        ),
      ),
    );
  write("details", details);
  const remarks = [];
  if (reconnects) remarks.push(times(reconnects, "connected anew"));
  if (stalls) remarks.push(times(stalls, "fell silent while connected"));
  if (unpaired) remarks.push(`${unpaired} samples left out: no gyroscope beside them`);
  if (skipped) remarks.push(`${skipped} samples skipped: this machine is too slow`);
  $("remarks").replaceChildren(...remarks.map((text) => element("li", "", text)));
}

function drawSignal({ t_s: timesS, acc_mps2: acc, gyro_rads: gyro }) {
  if (!timesS.length) return;
  status.sampled();
  // No less than gravity and a slow turn, so that noise does not fill the picture.
  drawAxes("acc", timesS, acc, 12, "Acceleration", "m/s²");
  $("gyro").hidden = !gyro;
  if (gyro) drawAxes("gyro", timesS, gyro, 2, "Rotation", "rad/s");
}

/** Three lines over the last seconds, zero in the middle, as high as the highest value. */
function drawAxes(id, timesS, axes, atLeast, name, unit) {
  const values = axes.flat().filter((value) => value !== null);
  const high = Math.max(atLeast, ...values.map(Math.abs));
  const svg = $(id).querySelector("svg");
  svg.setAttribute("viewBox", `${-SIGNAL_S} ${-high} ${SIGNAL_S} ${2 * high}`);
  if (!svg.childElementCount) {
    for (const axis of ["zero", ...AXES]) {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("class", axis);
      svg.append(path);
    }
  }
  const [zero, ...lines] = svg.children;
  zero.setAttribute("d", `M${-SIGNAL_S} 0H0`);
  lines.forEach((path, i) => path.setAttribute("d", line(timesS, axes[i])));
  write(`${id}-range`, `${name}, ${unit}, up to ±${high.toFixed(high < 10 ? 1 : 0)}`);
  const told = axes.map((axis, i) => `${AXES[i]} ${range(axis)}`).join(", ");
  svg.setAttribute("aria-label", `${name} in the last ${SIGNAL_S} s in ${unit}: ${told}`);
}

function range(axis) {
  const values = axis.filter((value) => value !== null);
  if (!values.length) return "without values";
  return `${Math.min(...values).toFixed(1)} to ${Math.max(...values).toFixed(1)}`;
}

function line(timesS, values) {
  let path = "";
  let lastS = -Infinity;
  timesS.forEach((tS, i) => {
    if (tS === null || values[i] === null) return;
    path += `${tS - lastS > GAP_S ? "M" : "L"}${tS} ${-values[i]}`;
    lastS = tS;
  });
  return path;
}

/** Listens while the page is seen: a browser has few connections, and a hidden page needs none. */
class Listener {
  #source = null;

  constructor() {
    document.addEventListener("visibilitychange", () => this.#attend());
    this.#attend();
  }

  #attend() {
    if (document.hidden || status.isOver) this.#close();
    else if (!this.#source) this.#open();
  }

  #open() {
    const source = new EventSource("events");
    this.#source = source;
    source.addEventListener("open", () => (status.connection = "open"));
    source.addEventListener("moment", (event) => {
      drawRun(JSON.parse(event.data));
      if (status.isOver) this.#close(); // the server is gone; nothing to come back to
    });
    source.addEventListener("signal", (event) => drawSignal(JSON.parse(event.data)));
    source.addEventListener("error", () => {
      status.connection = "lost";
      // A browser tries again by itself, except where it was refused.
      if (source.readyState !== EventSource.CLOSED) return;
      this.#close();
      setTimeout(() => this.#attend(), AGAIN_MS);
    });
  }

  #close() {
    this.#source?.close();
    this.#source = null;
  }
}

const status = new Status();
new Listener();
