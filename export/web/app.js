/** The page: wires the bundle, the labels, the two sources and the view together. */

import { loadBundle } from "./bundle.js";
import { InputError } from "./errors.js";
import { resolveLabels } from "./labels.js";
import { motionSamples, reportsOppositeSign, requestMotion } from "./motion.js";
import { Pipeline } from "./pipeline.js";
import { readRecording } from "./recording.js";
import { View } from "./view.js";

/** Windows of live use that the timeline shows: five minutes. */
const LIVE_WINDOWS = 300;

// Served from a checkout, the page takes the bundle that ships with the package; published
// elsewhere, one that lies beside it.
const DEFAULT_BUNDLE = location.pathname.includes("/export/web/")
  ? "../../edge/data/bundle/"
  : "bundle/";

const byId = (id) => document.getElementById(id);
const view = new View(document);

/**
 * What the page knows, for the console and the tests. `state` is loading, ready (nothing runs),
 * running or failed (no bundle); a prediction has startS, endS, valid, missing, rateHz,
 * inferenceMs, embedding, faceDeg, tiltDeg, scores (best first), presence and unknown.
 */
const page = { state: "loading", bundle: null, labels: null, predictions: [] };
window.auraEdge = page;

/** The run in progress or the last one: {stop: AbortController, ended: Promise}. */
let running = null;

/** The recording that is shown, read again when a unit is chosen. */
let recordingFile = null;

function say(text) {
  byId("status").textContent = text;
}

function showError(id, error) {
  const place = byId(id);
  place.hidden = !error;
  place.textContent = error ? describe(error) : "";
}

function describe(error) {
  if (error instanceof InputError) return error.message;
  console.error(error);
  return `Something went wrong in the page itself: ${error}`;
}

function showNotes(notes) {
  const list = byId("notes");
  list.hidden = !notes.length;
  list.replaceChildren(
    ...notes.map((note) => Object.assign(document.createElement("li"), { textContent: note })),
  );
}

/**
 * Take the labels as they stand, or say why not; while they are being typed, an unknown one is
 * most likely unfinished.
 */
function useLabels({ typing = false } = {}) {
  try {
    page.labels = resolveLabels(byId("labels").value, page.bundle);
  } catch (error) {
    if (!typing) showError("labels-error", error);
    return;
  }
  showError("labels-error", null);
  view.order = page.labels.names;
  nameAnew();
}

/** Decide again what has been embedded, without the encoder. */
function nameAnew() {
  for (const prediction of page.predictions) Object.assign(prediction, verdictOn(prediction));
  view.redraw();
}

function verdictOn(prediction) {
  if (!prediction.valid) return { scores: [], presence: null, unknown: false };
  return page.labels.classify(prediction, byId("placement").value);
}

/**
 * Run a source to its end, or until another one is started. `start` gives its samples, sync or
 * async, and is told when to stop.
 */
async function run(start, longest) {
  const previous = running;
  const stop = new AbortController();
  const ended = (async () => {
    previous?.stop.abort();
    await previous?.ended;
    if (!stop.signal.aborted) await runToEnd(start, longest, stop.signal);
  })();
  page.state = "running";
  running = { stop, ended };
  await ended;
}

async function runToEnd(start, longest, signal) {
  page.state = "running"; // the run before this one may have said otherwise since
  page.predictions = [];
  showError("error", null);
  showNotes([]);
  view.open(page.predictions, longest);
  const pipeline = new Pipeline(page.bundle);
  const take = (embedded) => {
    for (const window of embedded) {
      page.predictions.push({ ...window, ...verdictOn(window) });
      view.redraw();
    }
  };
  const notes = [];
  try {
    for await (const samples of start(signal, notes)) {
      take(await pipeline.push(samples));
      if (signal.aborted) break;
    }
    take(await pipeline.finish());
    if (!page.predictions.length) {
      throw new InputError("Less than 1 s of signal without a gap: no window could be classified.");
    }
    const classified = page.predictions.filter((p) => p.valid).length;
    notes.push(`${page.predictions.length} windows, ${classified} classified`);
  } catch (error) {
    showError("error", error);
  }
  const { notFinite, notLater, firstNotLaterS } = pipeline.resampler.dropped;
  if (notFinite) notes.push(`${notFinite} samples left out: NaN or empty in some channel`);
  if (notLater) {
    notes.push(
      `${notLater} samples left out: not later than the sample before them (first at ` +
        `${firstNotLaterS.toFixed(3)} s)`,
    );
  }
  showNotes(notes);
  page.state = "ready";
}

function openFile(file) {
  recordingFile = file;
  if (file) run((signal, notes) => fileSamples(file, notes));
}

async function* fileSamples(file, notes) {
  say(`Reading ${file.name}`);
  const units = {
    acc: byId("unit-acc").value,
    gyro: byId("unit-gyro").value,
    time: byId("unit-time").value,
  };
  const recording = readRecording(file.name, await file.text(), units);
  say(recording.summary);
  notes.push(...recording.notes);
  for (const samples of recording.chunks()) {
    yield samples;
    await new Promise((resolve) => setTimeout(resolve)); // lets the page draw
  }
}

async function* liveSamples(signal) {
  say("Listening to the motion sensors; the first label comes after 5 s");
  try {
    for await (const samples of motionSamples(signal, () => byId("turned").checked)) {
      const z = samples.channels[2].at(-1);
      byId("z-reading").textContent = `${z < 0 ? "−" : "+"}${Math.abs(z).toFixed(1)}`;
      yield samples;
    }
  } finally {
    byId("z-reading").textContent = "no reading";
    say("Stopped");
  }
}

async function startLive() {
  const button = byId("live");
  if (button.dataset.on) {
    running.stop.abort();
    return;
  }
  try {
    await requestMotion();
  } catch (error) {
    showError("error", error);
    return;
  }
  // A dark screen stops the sensors. Browsers without the lock, or low on battery, go without.
  const lock = navigator.wakeLock?.request("screen").catch(() => null);
  recordingFile = null;
  button.dataset.on = "yes";
  button.textContent = "Stop";
  await run(liveSamples, LIVE_WINDOWS);
  (await lock)?.release();
  delete button.dataset.on;
  button.textContent = "Use this device’s sensors";
}

byId("turned").checked = reportsOppositeSign();
byId("labels").addEventListener("input", () => useLabels({ typing: true }));
byId("labels").addEventListener("change", () => useLabels());
byId("placement").addEventListener("change", nameAnew);
byId("live").addEventListener("click", startLive);
byId("file").addEventListener("change", ({ target }) => openFile(target.files[0]));
for (const id of ["unit-acc", "unit-gyro", "unit-time"]) {
  byId(id).addEventListener("change", () => openFile(recordingFile));
}
// The same file can be chosen again, after it has been edited.
byId("file").addEventListener("click", ({ target }) => (target.value = ""));

try {
  const address = new URLSearchParams(location.search).get("bundle") ?? DEFAULT_BUNDLE;
  page.bundle = await loadBundle(address, say);
  byId("labels").value = page.bundle.manifest.default_labels.join(", ");
  useLabels();
  byId("worn").hidden = !page.bundle.decision; // without one, the placement says nothing
  for (const id of ["labels", "file", "live"]) byId(id).disabled = false;
  say(`Ready: ${page.bundle.manifest.name}, ${page.bundle.manifest.label_bank.length} activities`);
  page.state = "ready";
} catch (error) {
  say("No bundle, no labels.");
  showError("error", error);
  page.state = "failed";
}
