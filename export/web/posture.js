/** What gravity says of the wearer's posture: edge/posture.py, where the reasons stand. */

import { InputError } from "./errors.js";
import { SIGNAL, WINDOW_SAMPLES } from "./spec.js";
import { steadyDirection } from "./upright.js";
import { dot, sum } from "./vectors.js";

export const POSTURES = ["upright", "sitting", "lying"];

/** Body segments that a device is worn on; the page's choice of placement is one of these. */
const SEGMENTS = ["trunk", "thigh", "arm", "shank", "unknown"];

const STEADY_DEG = 25;
const PIECE = SIGNAL.rate_hz;

export const NO_EVIDENCE = { faceDeg: null, tiltDeg: null };

/**
 * The angles of a window of `WindowCutter`, in degrees: of the device's flat face from vertical,
 * null without a steady direction; and from the upright direction, null where that is not known
 * either.
 */
export function postureEvidence(imu, upright) {
  const direction = gravityDirection(imu);
  if (!direction) return NO_EVIDENCE;
  return {
    faceDeg: degrees(Math.asin(clipped(Math.abs(direction[2])))),
    tiltDeg: upright && degrees(Math.acos(clipped(dot(direction, upright)))),
  };
}

const degrees = (angle) => (angle * 180) / Math.PI;

// Rounding may leave the range of acos.
const clipped = (cosine) => Math.min(1, Math.max(-1, cosine));

function gravityDirection(imu) {
  const pieces = [];
  for (let start = 0; start < WINDOW_SAMPLES; start += PIECE) {
    const sums = [0, 0, 0];
    let count = 0;
    for (let i = start; i < start + PIECE; i++) {
      if (Number.isNaN(imu[i])) continue;
      count++;
      for (let axis = 0; axis < 3; axis++) sums[axis] += imu[axis * WINDOW_SAMPLES + i];
    }
    pieces.push({ sums, count });
  }
  return steadyDirection(pieces, PIECE, STEADY_DEG);
}

/** A bundle's tables of how likely each angle is. */
export class PostureTables {
  #face;
  #tilt;

  /** Read a manifest's `decision.posture`; throws an InputError that says where it is malformed. */
  constructor(record) {
    if (JSON.stringify(record.postures) !== JSON.stringify(POSTURES)) {
      throw new InputError(`decision.posture.postures: expected ${POSTURES.join(", ")}`);
    }
    this.#face = readTable(record, "face", 90);
    this.#tilt = readTable(record, "tilt", 180);
  }

  /**
   * What a window's angles say of upright, sitting, lying and of no posture: each one's
   * probability over the mean of the three, 1 for none. The tilt is asked where it is known.
   */
  ratios(segment, { faceDeg, tiltDeg }) {
    if (faceDeg === null) return [1, 1, 1, 1];
    const { edges, rows } = tiltDeg === null ? this.#face : this.#tilt;
    // The last bin holds its upper edge too.
    const after = edges.findIndex((edge) => edge > (tiltDeg ?? faceDeg));
    const bin = after < 0 ? edges.length - 2 : after - 1;
    const likely = rows[segment].map((row) => row[bin]);
    const mean = sum(likely) / likely.length;
    return [...likely.map((p) => p / mean), 1];
  }
}

function readTable(record, name, highestDeg) {
  const edges = record[`${name}_edges_deg`];
  const ascending = isNumbers(edges) && edges.every((edge, i) => !i || edge > edges[i - 1]);
  if (!(ascending && edges.length > 1 && edges[0] === 0 && edges.at(-1) === highestDeg)) {
    throw new InputError(
      `decision.posture.${name}_edges_deg: expected angles ascending from 0 to ${highestDeg}`,
    );
  }
  const isRow = (row) =>
    isNumbers(row) &&
    row.length === edges.length - 1 &&
    row.every((p) => p > 0) &&
    Math.abs(sum(row) - 1) <= 0.01;
  for (const segment of SEGMENTS) {
    const rows = record[name]?.[segment];
    if (!(Array.isArray(rows) && rows.length === POSTURES.length && rows.every(isRow))) {
      throw new InputError(
        `decision.posture.${name}.${segment}: expected ${POSTURES.length} rows of ` +
          `${edges.length - 1} probabilities above 0 that add up to 1`,
      );
    }
  }
  return { edges, rows: record[name] };
}

const isNumbers = (list) => Array.isArray(list) && list.every(Number.isFinite);
