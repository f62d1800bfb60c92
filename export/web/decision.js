/**
 * How a bundle's labels are decided between: edge/decision.py, specified in export/BUNDLE.md.
 *
 * Beside the cosine with a label's own prototype, two things speak for it: the activities that the
 * encoder was trained on, carried over by the similarity of the texts (the bridge), and the
 * posture that gravity shows. How a label compares with the others does not say that its activity
 * is there: presence does, how close in text the labels come to what the window seems to be.
 */

import { InputError } from "./errors.js";
import { POSTURES, PostureTables } from "./posture.js";
import { dot, logSoftmax, median, softmax, sum, unit } from "./vectors.js";

const SAME_COSINE = 1 - 1e-5;
const BRIDGE_FLOOR = 1e-4;

/** The manifest's `decision`, and what the label bank says of posture. */
export class Decision {
  #rule;
  #vocabulary;
  #tables;
  #bankPostures;
  #reference;
  // What the encoder's own activities make of a window, by its embedding: the dearest part, and
  // the same whatever the labels are.
  #shares = new WeakMap();

  /**
   * Read it; throws an InputError that says where it is malformed. `prototypeOf` gives the
   * prototype of a row of the label bank; `reference` holds embeddings of windows of all kinds,
   * where the bundle has them.
   */
  constructor({ decision, label_bank: bank }, prototypeOf, reference) {
    const vocabulary = section(decision, "vocabulary");
    const bridge = section(decision, "bridge");
    const posture = section(decision, "posture");
    this.#rule = {
      vocabularyScale: positive(vocabulary.logit_scale, "vocabulary.logit_scale"),
      bridgeWeight: notNegative(bridge.weight, "bridge.weight", 1),
      bridgeTemperature: positive(bridge.temperature, "bridge.temperature"),
      postureWeight: notNegative(posture.weight, "posture.weight"),
      temperature: positive(decision.temperature, "temperature"),
      levelsNovel: checkedFlag(decision.level_novel_labels ?? false, "level_novel_labels"),
      rejectBelow: "reject" in decision ? checkedCosine(decision.reject?.below) : -Infinity,
    };
    this.#vocabulary = checkedRows(vocabulary.rows, bank.length).map(prototypeOf);
    this.#tables = new PostureTables(posture);
    this.#bankPostures = bank.map(postureOf);
    this.#reference = reference;
    if (this.#rule.levelsNovel && !reference) {
      throw new InputError("decision.level_novel_labels: prototypes.npz lacks `reference`");
    }
  }

  /**
   * The decision between some labels of the bank: a function that takes a window's cosines with
   * their prototypes, its embedding, the body segment, and its angles. It
   * gives {score, presence, unknown}: what the labels are ranked by, and whose softmax gives the
   * probabilities; the expected cosine, in text, of what the window seems to be with the label that
   * comes nearest to that, null where the rule does not ask for it; and whether that is too little
   * for any of them.
   */
  between(prototypes, rows, logitScale) {
    const { bridgeWeight, postureWeight, temperature, rejectBelow, levelsNovel } = this.#rule;
    // Prototypes that were stored as float16 are longer or shorter than 1 by more than SAME_COSINE
    // allows for.
    const wanted = prototypes.map(unit);
    const cosines = this.#vocabulary.map(unit).map((own) => wanted.map((label) => dot(own, label)));
    const trained = wanted.map((_, label) => cosines.some((row) => row[label] >= SAME_COSINE));
    const footing = levelsNovel ? this.#footing(prototypes, trained) : null;
    const ownLogit = (cosine, label) =>
      logitScale * (footing ? footing[label].gain * cosine + footing[label].offset : cosine);
    const transfer = cosines.map((row) => handedOn(row, this.#rule.bridgeTemperature));
    const nearest = cosines.map((row) => Math.max(...row));
    const asksVocabulary = bridgeWeight > 0 || rejectBelow > -Infinity;
    // Labels of the page are of the bank, whose word on their posture is taken as it stands.
    const postures = rows.map((row) => this.#bankPostures[row]);
    return (similarity, embedding, segment, evidence) => {
      const logProbability = logSoftmax(similarity.map(ownLogit));
      const shares = asksVocabulary ? this.#sharesOf(embedding) : null;
      const ratios = this.#tables.ratios(segment, evidence);
      const score = logProbability.map((own, label) => {
        const posture = Math.log(ratios[postures[label]]);
        if (!shares) return (own + postureWeight * posture) / temperature;
        const given = sum(shares.map((share, activity) => share * transfer[activity][label]));
        const bridged = Math.log(given + BRIDGE_FLOOR);
        const z = (1 - bridgeWeight) * own + bridgeWeight * bridged + postureWeight * posture;
        return z / temperature;
      });
      if (!shares) return { score, presence: null, unknown: false };
      const presence = dot(shares, nearest);
      return { score, presence, unknown: presence < rejectBelow };
    };
  }

  /**
   * What puts labels that were not trained on the footing of those that were, each {gain, offset}:
   * their cosines become as high and spread as much, over windows of all kinds, as is usual.
   */
  #footing(prototypes, trained) {
    const ofVocabulary = this.#vocabulary.map((prototype) => this.#usual(prototype));
    const mean = median(ofVocabulary.map((usual) => usual.mean));
    const deviation = median(ofVocabulary.map((usual) => usual.deviation));
    return prototypes.map((prototype, label) => {
      if (trained[label]) return { gain: 1, offset: 0 };
      const usual = this.#usual(prototype);
      const gain = deviation / usual.deviation;
      return { gain, offset: mean - gain * usual.mean };
    });
  }

  /** The mean and the spread of a label's cosines over windows of all kinds. */
  #usual(prototype) {
    const found = this.#reference.map((embedding) => dot(embedding, prototype));
    const mean = sum(found) / found.length;
    const variance = sum(found.map((cosine) => (cosine - mean) ** 2)) / found.length;
    return { mean, deviation: Math.max(Math.sqrt(variance), 1e-6) };
  }

  /** The share of each activity of the vocabulary in a window. */
  #sharesOf(embedding) {
    if (!this.#shares.has(embedding)) {
      const cosines = this.#vocabulary.map((prototype) => dot(prototype, embedding));
      this.#shares.set(embedding, softmax(cosines.map((c) => this.#rule.vocabularyScale * c)));
    }
    return this.#shares.get(embedding);
  }
}

/**
 * The shares in which an activity hands its probability on to the labels, by its cosines with them.
 * One that is itself a wanted label keeps all of its own.
 */
function handedOn(cosines, temperature) {
  const same = cosines.filter((cosine) => cosine >= SAME_COSINE).length;
  if (same) return cosines.map((cosine) => (cosine >= SAME_COSINE ? 1 / same : 0));
  return softmax(cosines.map((cosine) => cosine / temperature));
}

function section(record, key) {
  const found = record?.[key];
  if (found === null || typeof found !== "object") {
    throw new InputError(`decision.${key}: expected an object`);
  }
  return found;
}

function notNegative(value, path, most = Infinity) {
  if (!(Number.isFinite(value) && value >= 0 && value <= most)) {
    const limit = most < Infinity ? ` up to ${most}` : "";
    throw new InputError(`decision.${path}: expected a number of 0 or more${limit}`);
  }
  return value;
}

function checkedFlag(value, path) {
  if (typeof value !== "boolean") throw new InputError(`decision.${path}: expected true or false`);
  return value;
}

function positive(value, path) {
  if (!(Number.isFinite(value) && value > 0)) {
    throw new InputError(`decision.${path}: expected a number above 0`);
  }
  return value;
}

function checkedCosine(value) {
  if (!(Number.isFinite(value) && Math.abs(value) <= 1)) {
    throw new InputError("decision.reject.below: expected a cosine, -1 to 1");
  }
  return value;
}

function checkedRows(rows, bankSize) {
  const isRow = (row) => Number.isInteger(row) && row >= 0 && row < bankSize;
  const good = Array.isArray(rows) && rows.length > 0 && rows.every(isRow);
  if (!good || new Set(rows).size < rows.length) {
    throw new InputError(
      `decision.vocabulary.rows: expected different rows of the label bank (0 to ${bankSize - 1})`,
    );
  }
  return rows;
}

/** Where an activity's posture stands in the tables' ratios; the last stands for none. */
function postureOf({ name, posture = null }) {
  if (posture === null) return POSTURES.length;
  const found = POSTURES.indexOf(posture);
  if (found < 0) {
    throw new InputError(
      `label_bank, “${name}”: posture “${posture}” is none of ${POSTURES.join(", ")}`,
    );
  }
  return found;
}
