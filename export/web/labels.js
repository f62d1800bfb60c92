/** The user's labels -> prototypes of the bundle's bank, and embeddings -> labels. */

import { normalised } from "./bundle.js";
import { InputError } from "./errors.js";
import { dot, softmax } from "./vectors.js";

const N_HINTS = 4;
const MIN_LIKENESS = 0.5;

/** Prototypes of comma-separated labels, shown later in the user's own words. */
export function resolveLabels(text, bundle) {
  const labels = text.split(/[,\n]/).map((part) => part.trim()).filter(Boolean);
  if (!labels.length) throw new InputError("Give at least one label.");
  const unknown = labels.filter((label) => !bundle.bank.has(normalised(label)));
  if (unknown.length) throw new InputError(unknown.map((l) => hint(l, bundle)).join("\n"));
  const owner = new Map();
  for (const label of labels) {
    const row = bundle.bank.get(normalised(label));
    if (owner.has(row)) {
      const name = bundle.manifest.label_bank[row].name;
      throw new InputError(
        `“${owner.get(row)}” and “${label}” are the same activity (${name}): leave one out.`,
      );
    }
    owner.set(row, label);
  }
  return new LabelSet(labels, [...owner.keys()], bundle);
}

/** The labels to choose from. */
class LabelSet {
  #prototypes;
  #logitScale;
  #decide; // null: the cosine alone decides

  constructor(names, rows, bundle) {
    this.names = names;
    this.#prototypes = rows.map((row) => bundle.prototype(row));
    this.#logitScale = bundle.logitScale;
    this.#decide = bundle.decision && bundle.decision.between(this.#prototypes, rows, this.#logitScale);
  }

  /**
   * What is said of one window of the pipeline, worn on a body segment: {scores, presence,
   * unknown}. Scores are all labels, best first: {label, similarity, probability}; unknown says
   * that none of them fits; presence is null where the bundle's decision does not ask.
   */
  classify({ embedding, faceDeg, tiltDeg }, segment) {
    const similarity = this.#prototypes.map((prototype) => dot(prototype, embedding));
    let score = similarity.map((cosine) => this.#logitScale * cosine);
    let presence = null;
    let unknown = false;
    if (this.#decide) {
      const angles = { faceDeg, tiltDeg };
      ({ score, presence, unknown } = this.#decide(similarity, embedding, segment, angles));
    }
    const probability = softmax(score);
    const best = [...score.keys()].sort((a, b) => score[b] - score[a]);
    const scores = best.map((i) => ({
      label: this.names[i],
      similarity: similarity[i],
      probability: probability[i],
    }));
    return { scores, presence, unknown };
  }
}

function hint(label, bundle) {
  const wanted = normalised(label);
  const close = [];
  for (const name of bundle.bank.keys()) {
    const score = likeness(wanted, name);
    if (score >= MIN_LIKENESS) close.push([score, name]);
  }
  close.sort((a, b) => b[0] - a[0]);
  const names = close.slice(0, N_HINTS).map(([, name]) => name);
  // Spelling misses a shared word in another place ("my dog walk"): look for that too.
  const words = new Set(wanted.split(" "));
  for (const name of bundle.bank.keys()) {
    if (names.length >= N_HINTS) break;
    if (name.split(" ").some((word) => words.has(word)) && !names.includes(name)) names.push(name);
  }
  const closest = names.length ? `Closest: ${names.join(", ")}.` : "Nothing comes close.";
  return `“${label}” is not in the bundle's label bank. ${closest}`;
}

/** Letters that two texts share in the same order, as a share of all their letters. */
function likeness(a, b) {
  let previous = new Uint16Array(b.length + 1);
  for (const letter of a) {
    const current = new Uint16Array(b.length + 1);
    for (let j = 0; j < b.length; j++) {
      current[j + 1] = letter === b[j] ? previous[j] + 1 : Math.max(previous[j + 1], current[j]);
    }
    previous = current;
  }
  return (2 * previous[b.length]) / (a.length + b.length);
}
