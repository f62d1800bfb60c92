/**
 * The one path from samples to what labels are decided by: resampler -> window -> encoder, and
 * beside it the angles that show the posture (edge/pipeline.py).
 */

import { NO_EVIDENCE, postureEvidence } from "./posture.js";
import { Resampler, countWhile } from "./resample.js";
import { SIGNAL } from "./spec.js";
import { UprightTracker } from "./upright.js";
import { MAX_MISSING, WindowCutter } from "./window.js";

/** All state of one stream. Await each `push` before the next, then `finish`. */
export class Pipeline {
  resampler = new Resampler();
  #cutter = new WindowCutter();
  #upright = new UprightTracker();
  #bundle;
  #measuredS = []; // times of the samples that coming windows may hold

  constructor(bundle) {
    this.#bundle = bundle;
  }

  /** Take samples; return the windows they complete. */
  async push(samples) {
    const blocks = this.resampler.push(samples);
    for (const t of this.resampler.acceptedS) this.#measuredS.push(t);
    return this.#embed(this.#cut(blocks));
  }

  /** The stream has ended: return the last windows. */
  async finish() {
    const windows = this.#cut(this.resampler.finish());
    return this.#embed([...windows, ...this.#cutter.finish()]);
  }

  #cut(blocks) {
    return blocks.flatMap((block) => {
      this.#upright.push(block);
      return this.#cutter.push(block);
    });
  }

  async #embed(windows) {
    const embedded = [];
    for (const window of windows) {
      const startS = this.resampler.timeOf(window.start);
      const endS = this.resampler.timeOf(window.stop);
      const valid = window.missing <= MAX_MISSING;
      const rateHz = this.#rate(startS, endS, window.missing);
      const began = performance.now();
      const embedding = valid ? await this.#bundle.embed(window.imu) : null;
      const inferenceMs = valid ? performance.now() - began : 0;
      const angles = valid
        ? postureEvidence(window.imu, this.#upright.referenceAt(window.stop))
        : NO_EVIDENCE;
      const { missing } = window;
      embedded.push({ startS, endS, valid, missing, rateHz, inferenceMs, embedding, ...angles });
    }
    return embedded;
  }

  /** Samples the source delivered in the window, per second of measured signal. */
  #rate(startS, endS, missing) {
    const halfStepS = 0.5 / SIGNAL.rate_hz; // keeps a sample on the border out of the rounding
    const first = countWhile(this.#measuredS, (t) => t < startS - halfStepS);
    const after = countWhile(this.#measuredS, (t) => t < endS - halfStepS);
    this.#measuredS = this.#measuredS.slice(first);
    const measuredS = (endS - startS) * (1 - missing);
    return measuredS > 0 ? (after - first) / measuredS : 0;
  }
}
