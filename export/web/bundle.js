/** A bundle over HTTP: fetched, verified against its manifest, ready to embed windows. */

import { Decision } from "./decision.js";
import { InputError } from "./errors.js";
import { readNpz } from "./npz.js";
import { N_CHANNELS, SIGNAL, WINDOW_SAMPLES } from "./spec.js";

/** Version 2 may hold a `decision`; without one, a bundle decides as those of version 1 do. */
const FORMAT_VERSION = 3;
const RUNTIME = "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";

/** As in edge/bundle.py: int8 rounds otherwise on another machine, another encoder is far below. */
const MIN_GOLDEN_COSINE = 0.98;

/** Load and verify the bundle in the folder `url`; `progress` is told what is going on. */
export async function loadBundle(url, progress = () => {}) {
  if (!globalThis.crypto?.subtle) {
    throw new InputError(
      "The bundle cannot be verified: browsers compute SHA-256 only for pages opened over https " +
        "or from localhost.",
    );
  }
  progress("Loading the bundle");
  const folder = new URL(url.endsWith("/") ? url : `${url}/`, document.baseURI);
  const manifest = await readManifest(folder);
  const [encoder, prototypeFile] = await Promise.all(
    ["encoder.onnx", "prototypes.npz"].map((name) => fetchVerified(folder, name, manifest.files)),
  );
  const { prototypes, reference } = await readArrays(prototypeFile, "prototypes.npz", [
    "prototypes",
  ]);
  const nActivities = manifest.label_bank.length;
  if (prototypes.shape[0] !== nActivities) {
    throw new InputError(
      `prototypes.npz: ${prototypes.shape[0]} prototypes for ${nActivities} activities of the ` +
        "label bank; export the bundle again.",
    );
  }
  const bankPrototypes = rowsOf(prototypes);
  const prototypeOf = (row) => bankPrototypes[row];
  const decision = readDecision(folder, manifest, prototypeOf, reference && rowsOf(reference));
  progress("Loading onnxruntime (14 MB, kept by the browser)");
  const embed = await openEncoder(encoder);
  // Bundles from before the self-test was introduced carry none.
  if (manifest.files["golden.npz"]) {
    const golden = await fetchVerified(folder, "golden.npz", manifest.files);
    await checkGolden(embed, await readArrays(golden, "golden.npz", ["imu", "embedding"]));
  }
  return new Bundle(manifest, prototypeOf, decision, embed);
}

/**
 * A verified bundle. `prototype` gives the prototype of one activity, by its row; `decision` is
 * what decides beside the cosine, if anything does; `embed` maps a window (6 x 1000 floats) to its
 * embedding.
 */
class Bundle {
  /** Every name and alias of the label bank, normalised -> row of its prototype. */
  bank = new Map();

  constructor(manifest, prototype, decision, embed) {
    this.manifest = manifest;
    this.prototype = prototype;
    this.decision = decision;
    this.embed = embed;
    this.logitScale = manifest.logit_scale;
    manifest.label_bank.forEach((activity, row) => {
      for (const wording of [activity.name, ...activity.aliases]) {
        this.bank.set(normalised(wording), row);
      }
    });
  }
}

/** The rows of a matrix {shape, data}. */
function rowsOf({ shape: [height, width], data }) {
  return Array.from({ length: height }, (_, row) => data.subarray(row * width, (row + 1) * width));
}

/** The form in which labels are compared: lower case, single spaces, no _ or -. */
export function normalised(label) {
  return label.toLowerCase().replace(/[_-]/g, " ").trim().replace(/\s+/g, " ");
}

async function readManifest(folder) {
  const url = new URL("manifest.json", folder);
  const text = new TextDecoder().decode(await download(url));
  let manifest;
  try {
    manifest = JSON.parse(text);
  } catch (error) {
    throw new InputError(`${url}: not JSON (${error.message}); export the bundle again.`);
  }
  if (manifest.format_version > FORMAT_VERSION) {
    throw new InputError(
      `${url}: bundle format ${manifest.format_version}, this page reads up to ` +
        `${FORMAT_VERSION}; update the page.`,
    );
  }
  for (const key of ["signal", "label_bank", "logit_scale", "default_labels", "files"]) {
    if (!(key in manifest)) {
      throw new InputError(`${url}: no field ${key}; export the bundle again.`);
    }
  }
  for (const [key, value] of Object.entries(SIGNAL)) {
    if (JSON.stringify(manifest.signal[key]) !== JSON.stringify(value)) {
      throw new InputError(
        `${url}: its encoder expects another signal than this page makes ` +
          `(${key}: ${manifest.signal[key]} and ${value}).`,
      );
    }
  }
  return manifest;
}

function readDecision(folder, manifest, prototypeOf, reference) {
  if (!("decision" in manifest)) return null;
  try {
    return new Decision(manifest, prototypeOf, reference);
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    throw new InputError(`${folder}manifest.json: ${error.message}; export the bundle again.`);
  }
}

async function download(url) {
  let response;
  try {
    response = await fetch(url, { cache: "no-cache" });
  } catch {
    throw new InputError(
      `${url}: cannot be reached. A bundle has to lie on the same site as this page, which is ` +
        "allowed to connect nowhere else.",
    );
  }
  if (!response.ok) {
    throw new InputError(
      `${url}: ${response.status} ${response.statusText}. The address of another bundle can be ` +
        "given as ?bundle=ADDRESS.",
    );
  }
  return response.arrayBuffer();
}

async function fetchVerified(folder, name, files) {
  const url = new URL(name, folder);
  if (!files[name]) throw new InputError(`${folder}manifest.json: no entry for ${name} in files.`);
  const content = await download(url);
  if (content.byteLength !== files[name].bytes) {
    throw new InputError(
      `${url}: ${content.byteLength} bytes, the manifest says ${files[name].bytes}; the file is ` +
        "truncated or replaced, copy or export the bundle again.",
    );
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== files[name].sha256) {
    throw new InputError(
      `${url}: its SHA-256 is not the manifest's; the file was changed or belongs to another ` +
        "bundle, copy or export the bundle again.",
    );
  }
  return content;
}

async function readArrays(buffer, name, wanted) {
  let arrays;
  try {
    arrays = await readNpz(buffer);
  } catch (error) {
    throw new InputError(`${name}: unreadable (${error.message}); export the bundle again.`);
  }
  for (const key of wanted) {
    if (!arrays[key]) throw new InputError(`${name}: holds no ${key}; export the bundle again.`);
  }
  return arrays;
}

/** The encoder as a function from window to embedding, on one thread of WebAssembly. */
async function openEncoder(model) {
  let ort;
  try {
    ort = await import(RUNTIME);
  } catch (error) {
    throw new InputError(
      `onnxruntime-web cannot be loaded (${error.message}). Run \`npm install\` in export/web.`,
    );
  }
  ort.env.wasm.numThreads = 1; // more would need headers that a plain file server does not send
  ort.env.logLevel = "error";
  let session;
  try {
    session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  } catch (error) {
    throw new InputError(`encoder.onnx: onnxruntime cannot load it (${error.message}).`);
  }
  // One window at a time: dynamic quantization scales activations by what is in the batch.
  return async (imu) => {
    const input = new ort.Tensor("float32", imu, [1, N_CHANNELS, WINDOW_SAMPLES]);
    const { embedding } = await session.run({ imu: input });
    return Float32Array.from(embedding.data);
  };
}

/** Embed the golden window: the encoder works in this browser, and is the one exported. */
async function checkGolden(embed, { imu, embedding }) {
  const here = await embed(imu.data);
  const cosine = here.reduce((sum, value, i) => sum + value * embedding.data[i], 0);
  if (!(cosine >= MIN_GOLDEN_COSINE)) {
    throw new InputError(
      `golden.npz: the encoder fails its self-test in this browser (cosine ${cosine.toFixed(3)} ` +
        `to the embedding it should give, at least ${MIN_GOLDEN_COSINE} expected).`,
    );
  }
}
