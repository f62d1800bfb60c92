/**
 * Which way is up for the wearer, learned while they walk.
 *
 * edge/upright.py in JavaScript: the same steps on the same seconds of the grid; the reasons for
 * the numbers stand there.
 */

import { SIGNAL } from "./spec.js";
import { dot, sum } from "./vectors.js";

const MIN_LENGTH_MPS2 = 2;
const DECIMATION = 8;
const A_SECOND = SIGNAL.rate_hz / DECIMATION;
const LOOK_S = 5;
const LOOK = LOOK_S * A_SECOND;
const MAX_MISSING = 0.2;
const MIN_STD_MPS2 = 0.8;
const MAX_STD_MPS2 = 6;
const MIN_LAG = Math.ceil(0.32 * A_SECOND);
const MAX_LAG = Math.floor(1.5 * A_SECOND);
const MIN_AUTOCORRELATION = 0.65;
const STEADY_DEG = 20;
const CERTAIN = 8;
const INVERTED_STEPS = 10;
const FORGET = Math.exp(-1 / 120);
const COS_AGREE = cosDeg(30);
const COS_REMOUNT = cosDeg(35);
const COS_INVERTED = cosDeg(140);

function cosDeg(angle) {
  return Math.cos((angle * Math.PI) / 180);
}

/**
 * Follows the upright direction of one stream. `push` its grid blocks in order, and ask for the
 * reference at ascending grid indices.
 */
export class UprightTracker {
  #head = 0; // grid index after the newest sample
  #group = [0, 0, 0]; // sums of the samples that make the next one at 25 Hz
  #second = emptySecond(); // the unfinished one
  #seconds = Array.from({ length: LOOK_S }, emptySecond); // the finished ones before it
  #votes = new Votes();
  #history = [{ index: 0, reference: null }];

  /** Take the next block; what lies between two blocks is missing. */
  push({ start, stop, channels: [x, y, z] }) {
    this.#missUntil(start);
    for (let i = 0; i < stop - start; i++) this.#take(x[i], y[i], z[i]);
  }

  /**
   * The reference after the last step whose 5 s end at or before a grid index: a unit vector in
   * device axes, or null as long as too little gait was seen. What is older is forgotten.
   */
  referenceAt(index) {
    while (this.#history[1]?.index <= index) this.#history.shift();
    return this.#history[0].reference;
  }

  /** Fill a gap. Of a long one only its first 5 s: all steps after them see nothing at all. */
  #missUntil(index) {
    const rate = SIGNAL.rate_hz;
    const allMissing = (Math.ceil(this.#head / rate) + LOOK_S) * rate;
    while (this.#head < Math.min(index, allMissing)) this.#take(NaN, NaN, NaN);
    if (index > allMissing) this.#head = Math.floor(index / rate) * rate;
    while (this.#head < index) this.#take(NaN, NaN, NaN);
  }

  #take(x, y, z) {
    this.#group[0] += x;
    this.#group[1] += y;
    this.#group[2] += z;
    this.#head++;
    if (this.#head % DECIMATION) return;
    addTo(this.#second, this.#group.map((value) => value / DECIMATION));
    this.#group = [0, 0, 0];
    if (this.#head % SIGNAL.rate_hz) return;
    this.#seconds = [...this.#seconds.slice(1), this.#second];
    this.#second = emptySecond();
    const direction = directionOf(this.#seconds);
    if (this.#votes.step(direction, direction !== null && isGait(this.#seconds))) {
      this.#history.push({ index: this.#head, reference: this.#votes.known() });
    }
  }
}

/** The sums of a second's accelerations, how many there are, and each one's length. */
function emptySecond() {
  return { sums: [0, 0, 0], count: 0, magnitudes: [] };
}

function addTo(second, acc) {
  const magnitude = Math.sqrt(dot(acc, acc));
  second.magnitudes.push(magnitude);
  if (Number.isNaN(magnitude)) return;
  second.count++;
  acc.forEach((value, axis) => (second.sums[axis] += value));
}

/** The steady mean direction of 5 s; null if there is none or too much is missing. */
function directionOf(seconds) {
  const count = sum(seconds.map((second) => second.count));
  if (count < (1 - MAX_MISSING) * LOOK) return null;
  return steadyDirection(seconds, A_SECOND, STEADY_DEG);
}

/** Whether |acceleration| through 5 s is as strong and as regular as gait's. */
function isGait(seconds) {
  const magnitudes = seconds.flatMap((second) => second.magnitudes);
  const present = magnitudes.filter((value) => !Number.isNaN(value));
  const mean = sum(present) / present.length;
  const variance = sum(present.map((m) => (m - mean) ** 2)) / present.length;
  if (!(variance >= MIN_STD_MPS2 ** 2 && variance <= MAX_STD_MPS2 ** 2)) return false;
  return periodicity(magnitudes.map((m) => m - mean)) >= MIN_AUTOCORRELATION * variance;
}

/**
 * The highest peak of the unbiased autocovariance over the lags of gait, 0 without one. Values
 * are around zero, NaN where missing.
 */
function periodicity(values) {
  const similarity = [];
  // From one lag below to one lag above: a peak has two neighbours.
  for (let lag = MIN_LAG - 1; lag <= MAX_LAG + 1; lag++) {
    let total = 0;
    let pairs = 0;
    for (let i = lag; i < values.length; i++) {
      const product = values[i] * values[i - lag];
      if (Number.isNaN(product)) continue;
      total += product;
      pairs++;
    }
    similarity.push(total / pairs);
  }
  const peaks = similarity.filter((s, k) => s >= similarity[k - 1] && s >= similarity[k + 1]);
  return Math.max(0, ...peaks);
}

/**
 * The direction of the mean acceleration of a stretch, if it holds through all its pieces: a unit
 * vector, or null. Pieces are {sums, count}, `full` samples long when whole; those that lack more
 * than half are not asked. A piece may point `limitDeg` from the stretch.
 */
export function steadyDirection(pieces, full, limitDeg) {
  const asked = pieces.filter(({ count }) => 2 * count >= full);
  const total = [0, 1, 2].map((axis) => sum(pieces.map((piece) => piece.sums[axis])));
  const count = sum(pieces.map((piece) => piece.count));
  const length = Math.sqrt(dot(total, total));
  if (!asked.length || length < MIN_LENGTH_MPS2 * count) return null;
  const direction = total.map((value) => value / length);
  const limit = cosDeg(limitDeg);
  const agrees = (piece) =>
    dot(piece.sums, direction) >= limit * Math.sqrt(dot(piece.sums, piece.sums));
  return asked.every(agrees) ? direction : null;
}

/** Turns the steps, one by one, into the reference. */
class Votes {
  #reference = new Direction();
  #candidate = new Direction();
  #confirmed = 0; // agreeing votes since the candidate came up
  #inverted = 0;

  /** The reference, once it is certain. */
  known() {
    return this.#reference.votes >= CERTAIN ? this.#reference.unit : null;
  }

  /** Take a step's direction (null if not steady); whether the reference may have changed. */
  step(direction, isGait) {
    if (direction === null) {
      this.#inverted = 0;
      return false;
    }
    if (isGait) this.#vote(direction);
    const inverted =
      this.#reference.votes > 0 && dot(this.#reference.unit, direction) < COS_INVERTED;
    this.#inverted = inverted ? this.#inverted + 1 : 0;
    if (this.#inverted < INVERTED_STEPS) return isGait;
    this.#reference = new Direction();
    this.#candidate = new Direction();
    this.#inverted = 0;
    return true;
  }

  #vote(vote) {
    if (!this.#reference.votes) {
      this.#reference.add(vote, true);
      return;
    }
    const cosine = dot(this.#reference.unit, vote);
    if (cosine >= COS_REMOUNT) {
      const agrees = cosine >= COS_AGREE;
      this.#reference.add(vote, agrees);
      if (agrees) this.#confirmed++;
      if (this.#confirmed >= CERTAIN) this.#candidate = new Direction();
      return;
    }
    if (!(this.#candidate.votes && dot(this.#candidate.unit, vote) >= COS_AGREE)) {
      this.#candidate = new Direction();
      this.#confirmed = 0;
    }
    this.#candidate.add(vote, true);
    if (this.#candidate.votes >= CERTAIN) {
      this.#reference = this.#candidate;
      this.#candidate = new Direction();
    }
  }
}

/** An exponentially forgetting mean of unit vectors. */
class Direction {
  /** Votes that agreed with those before them. */
  votes = 0;
  unit = [0, 0, 0];
  #sum = [0, 0, 0];

  /** Take a unit vector. */
  add(vote, agrees) {
    this.#sum = this.#sum.map((value, axis) => FORGET * value + vote[axis]);
    const length = Math.sqrt(dot(this.#sum, this.#sum));
    this.unit = this.#sum.map((value) => value / length);
    if (agrees) this.votes++;
  }
}
