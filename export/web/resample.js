/**
 * Samples at any rate from 10 to 1000 Hz, uniform or jittered -> the 200 Hz grid.
 *
 * edge/resample.py in JavaScript, operation by operation, so that a window is the same here and
 * there; the reasons for the numbers stand there. Up to 200 Hz: monotone cubic Hermite
 * interpolation. Above: a Kaiser-windowed sinc. Nothing is interpolated across a gap.
 */

import { InputError } from "./errors.js";
import { SIGNAL } from "./spec.js";

export const MAX_GAP_S = 0.25;
const MAX_BACKWARD_S = 1.0;
const MAX_JUMP_S = 86400;
const RATE_DECISION_S = 0.5;
const LOW_PASS_ABOVE_HZ = 201.0;
const PASS_HZ = 60;
const STOP_HZ = 100;
const STOP_DB = 72;
const BETA = 0.1102 * (STOP_DB - 8.7);
const HALF_WIDTH_S = (STOP_DB - 7.95) / (14.36 * (STOP_HZ - PASS_HZ)) / 2;
const CUTOFF_HZ = (PASS_HZ + STOP_HZ) / 2;
const SUPPORT_TOLERANCE = 0.1;
const EPS_GRID = 1e-3;
const STEP_S = 1 / SIGNAL.rate_hz;

/**
 * Streaming resampler of one source. `push` samples in any chunks, `finish` at the end; both
 * return finished blocks of the grid: {start, stop, channels}, one Float32Array a channel.
 * Samples are {tS, channels}: times and 3 (accelerometer) or 6 (with gyroscope) arrays.
 */
export class Resampler {
  /** Time of grid index 0: the stream's first sample. */
  originS = null;
  dropped = { notLater: 0, notFinite: 0, firstNotLaterS: NaN };
  /** Times of the samples that the last push took. */
  acceptedS = [];

  #lastS = -Infinity;
  // The current stretch: samples since the last gap that unfinished grid values still need.
  #t = [];
  #x = null;
  #stretchStartS = 0;
  #stretchCount = 0;
  #lowPass = null; // undecided until the stretch is RATE_DECISION_S old
  #nextIndex = 0;

  push({ tS, channels }) {
    if (this.#x === null) {
      this.#x = channels.map(() => []);
    } else if (this.#x.length !== channels.length) {
      const change = channels.length > this.#x.length ? "appeared" : "disappeared";
      throw new InputError(`The gyroscope ${change} in mid-stream: start again.`);
    }
    this.acceptedS = [];
    const blocks = [];
    let added = 0;
    for (let i = 0; i < tS.length; i++) {
      if (!this.#accept(tS[i], channels, i)) continue;
      const t = tS[i];
      this.acceptedS.push(t);
      this.originS ??= t;
      if (this.#t.length && t - this.#t[this.#t.length - 1] > MAX_GAP_S) {
        blocks.push(...this.#endStretch());
        added = 0;
      }
      this.#append(t, channels, i);
      added++;
    }
    if (added && this.#lowPass !== null) blocks.push(...this.#emit(false));
    return blocks;
  }

  /** The stream has ended: the grid values up to its last sample. */
  finish() {
    return this.#endStretch();
  }

  /** Time of a grid index, in seconds of the source's clock. */
  timeOf(index) {
    return this.originS + index * STEP_S;
  }

  /** Leave out what cannot be placed in time and what was not measured. */
  #accept(t, channels, i) {
    if (!Number.isFinite(t) || channels.some((c) => !Number.isFinite(c[i]))) {
      this.dropped.notFinite++;
      return false;
    }
    const step = t - this.#lastS;
    if (step < -MAX_BACKWARD_S) {
      throw new InputError(
        `Time goes back by ${(-step).toFixed(3)} s (from ${this.#lastS.toFixed(3)} s to ` +
          `${t.toFixed(3)} s): the device's clock was reset, or the rows are not in the order of ` +
          "measurement. Split the recording there, or sort it by time.",
      );
    }
    if (Number.isFinite(step) && step > MAX_JUMP_S) {
      throw new InputError(
        `Time jumps ahead by ${(step / 3600).toFixed(1)} h (from ${this.#lastS.toFixed(3)} s to ` +
          `${t.toFixed(3)} s): the device's clock was set, or these are two recordings. Split ` +
          "the recording there.",
      );
    }
    if (step <= 0) {
      if (!this.dropped.notLater) this.dropped.firstNotLaterS = t;
      this.dropped.notLater++;
      return false;
    }
    this.#lastS = t;
    return true;
  }

  #append(t, channels, i) {
    if (!this.#t.length) this.#stretchStartS = t;
    if (this.#lowPass === null && t - this.#stretchStartS >= RATE_DECISION_S) {
      this.#decide(this.#stretchCount, t);
    }
    this.#stretchCount++;
    this.#t.push(t);
    this.#x.forEach((column, c) => column.push(channels[c][i]));
  }

  #decide(nIntervals, tS) {
    const spanS = tS - this.#stretchStartS;
    this.#lowPass = spanS > 0 && nIntervals / spanS > LOW_PASS_ABOVE_HZ;
  }

  #endStretch() {
    if (!this.#t.length) return [];
    if (this.#lowPass === null) this.#decide(this.#stretchCount - 1, this.#t.at(-1));
    const blocks = this.#emit(true);
    this.#t = [];
    this.#x = this.#x.map(() => []);
    this.#lowPass = null;
    this.#stretchCount = 0;
    return blocks;
  }

  /** First grid index at or after a time. */
  #gridCeil(tS) {
    return Math.ceil((tS - this.originS) / STEP_S - EPS_GRID);
  }

  /** Grid values whose neighbourhood is complete (all that are left, when `final`). */
  #emit(final) {
    const t = this.#t;
    const first = Math.max(this.#nextIndex, this.#gridCeil(t[0]));
    let stop;
    if (final) {
      stop = Math.floor((t.at(-1) - this.originS) / STEP_S + EPS_GRID) + 1;
    } else if (t.length < 3) {
      return []; // the slope at a sample needs the one after it
    } else {
      stop = this.#gridCeil(t.at(-2) - (this.#lowPass ? HALF_WIDTH_S : 0));
    }
    if (stop <= first) return [];
    const g = Float64Array.from({ length: stop - first }, (_, k) => this.timeOf(first + k));
    const values = interpolate(t, this.#x, g);
    if (this.#lowPass) filterInto(values, t, this.#x, g, this.#stretchStartS);
    this.#nextIndex = stop;
    this.#forget(g.at(-1));
    return [{ start: first, stop, channels: values.map((v) => Float32Array.from(v)) }];
  }

  /** Drop the samples that no unfinished grid value needs. */
  #forget(doneS) {
    const reachS = this.#lowPass ? HALF_WIDTH_S : 0;
    const keep = Math.max(0, countWhile(this.#t, (t) => t <= doneS - reachS) - 3);
    if (keep) {
      this.#t = this.#t.slice(keep);
      this.#x = this.#x.map((column) => column.slice(keep));
    }
  }
}

/** How many leading elements of a sorted array fulfil a condition. */
export function countWhile(sorted, condition, low = 0) {
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (condition(sorted[middle])) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Monotone cubic Hermite interpolation of the channels at the times g. */
function interpolate(t, channels, g) {
  if (t.length === 1) return channels.map((x) => new Float64Array(g.length).fill(x[0]));
  // Where each grid value stands, once for all channels.
  const left = new Int32Array(g.length);
  let i = 0;
  for (let k = 0; k < g.length; k++) {
    while (i < t.length - 2 && t[i + 1] <= g[k] + EPS_GRID / SIGNAL.rate_hz) i++;
    left[k] = i;
  }
  return channels.map((x) => {
    const slope = slopes(t, x);
    return Float64Array.from(g, (time, k) => {
      const j = left[k];
      const h = t[j + 1] - t[j];
      const u = Math.min(Math.max((time - t[j]) / h, 0), 1);
      const a = x[j];
      const b = x[j + 1];
      const ma = slope[j] * h;
      const mb = slope[j + 1] * h;
      return a + u * (ma + u * (3 * (b - a) - 2 * ma - mb + u * (ma + mb - 2 * (b - a))));
    });
  });
}

/** Fritsch-Butland slopes: weighted harmonic mean of the two secants, 0 at an extremum. */
function slopes(t, x) {
  const n = t.length;
  const slope = new Float64Array(n);
  let hBefore = t[1] - t[0];
  let before = (x[1] - x[0]) / hBefore;
  slope[0] = before;
  for (let i = 1; i < n - 1; i++) {
    const h = t[i + 1] - t[i];
    const after = (x[i + 1] - x[i]) / h;
    if (before * after > 0) {
      const w1 = 2 * h + hBefore;
      const w2 = h + 2 * hBefore;
      slope[i] = (w1 + w2) / (w1 / before + w2 / after);
    }
    hBefore = h;
    before = after;
  }
  slope[n - 1] = before;
  return slope;
}

/** Modified Bessel function of the first kind, order 0; the series is exact enough up to BETA. */
function i0(x) {
  let term = 1;
  let sum = 1;
  for (let k = 1; term > sum * 1e-17; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

const I0_BETA = i0(BETA);

/** Kaiser-windowed sinc, unit area; 0 outside the half width. */
function kernel(offsetS) {
  if (Math.abs(offsetS) >= HALF_WIDTH_S) return 0;
  const inside = Math.max(1 - (offsetS / HALF_WIDTH_S) ** 2, 0);
  const y = Math.PI * 2 * CUTOFF_HZ * offsetS;
  const sinc = y === 0 ? 1 : Math.sin(y) / y;
  return (2 * CUTOFF_HZ * sinc * i0(BETA * Math.sqrt(inside))) / I0_BETA;
}

/**
 * Replace interpolated values by low-passed ones wherever the kernel has its samples: not within
 * its half width of a gap, where it would see one side only, and not over a hole.
 */
function filterInto(values, t, channels, g, stretchStartS) {
  const n = t.length;
  if (n < 3) return;
  const standsForS = Float64Array.from(t, (_, i) => {
    if (i === 0) return t[1] - t[0];
    if (i === n - 1) return t[n - 1] - t[n - 2];
    return (t[i + 1] - t[i - 1]) / 2;
  });
  const weights = [];
  let low = 0;
  for (let k = 0; k < g.length; k++) {
    if (g[k] - HALF_WIDTH_S < stretchStartS || g[k] + HALF_WIDTH_S > t[n - 1]) continue;
    while (low < n && t[low] < g[k] - HALF_WIDTH_S) low++;
    let total = 0;
    weights.length = 0;
    for (let i = low; i < n && t[i] <= g[k] + HALF_WIDTH_S; i++) {
      const weight = kernel(g[k] - t[i]) * standsForS[i];
      weights.push(weight);
      total += weight;
    }
    if (!(Math.abs(total - 1) < SUPPORT_TOLERANCE)) continue;
    channels.forEach((x, c) => {
      let sum = 0;
      for (let j = 0; j < weights.length; j++) sum += weights[j] * x[low + j];
      values[c][k] = sum / total;
    });
  }
}
