/** Grid values -> windows of 5 s, one a second (edge/window.py). */

import { N_CHANNELS, SIGNAL, WINDOW_SAMPLES } from "./spec.js";

/** A window that lacks more than this fraction of its samples is reported but not classified. */
export const MAX_MISSING = 0.2;
const MIN_SPAN_S = 1.0;
const END_TOLERANCE_S = 0.1;
const HOP_S = 1.0;

/**
 * Cuts windows out of grid blocks; keeps the last 5 s and nothing else. A window is
 * {start, stop, imu, missing}; imu holds the rows ax ay az gx gy gz one after another, NaN where
 * nothing was measured.
 */
export class WindowCutter {
  #ring = Array.from({ length: N_CHANNELS }, () => new Float32Array(WINDOW_SAMPLES).fill(NaN));
  #head = 0; // grid index after the newest value in the ring
  #cut = 0;

  /** The windows that end within the next block or in the gap before it. */
  push(block) {
    return [...this.#advance(block.start, null), ...this.#advance(block.stop, block)];
  }

  /**
   * The stream has ended: the windows that lack at most the end tolerance, and, of a stream
   * shorter than a window, one padded window.
   */
  finish() {
    const end = this.#head;
    const windows = [];
    while (this.#dueStop() <= end + Math.round(END_TOLERANCE_S * SIGNAL.rate_hz)) {
      windows.push(...this.#advance(this.#dueStop(), null));
    }
    if (!this.#cut && end >= MIN_SPAN_S * SIGNAL.rate_hz) windows.push(this.#window(0, end));
    return windows;
  }

  #dueStop() {
    return Math.round(this.#cut * HOP_S * SIGNAL.rate_hz) + WINDOW_SAMPLES;
  }

  #advance(to, block) {
    const windows = [];
    while (this.#dueStop() <= to) {
      const stop = this.#dueStop();
      this.#write(stop, block);
      windows.push(this.#window(stop - WINDOW_SAMPLES, stop));
    }
    this.#write(to, block);
    return windows;
  }

  /** Move the head to grid index `to`, with the block's values or with missing samples. */
  #write(to, block) {
    const start = Math.max(this.#head, to - WINDOW_SAMPLES); // older ones leave the ring anyway
    this.#ring.forEach((row, c) => {
      const values = block?.channels[c];
      for (let i = start; i < to; i++) {
        row[i % WINDOW_SAMPLES] = values ? values[i - block.start] : NaN;
      }
    });
    this.#head = Math.max(this.#head, to);
  }

  #window(start, stop) {
    this.#cut++;
    const imu = new Float32Array(N_CHANNELS * WINDOW_SAMPLES).fill(NaN);
    let missing = 0;
    for (let i = start; i < stop; i++) {
      const from = i % WINDOW_SAMPLES;
      this.#ring.forEach((row, c) => (imu[c * WINDOW_SAMPLES + i - start] = row[from]));
      if (Number.isNaN(this.#ring[0][from])) missing++;
    }
    return { start, stop, imu, missing: missing / (stop - start) };
  }
}
