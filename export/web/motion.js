/**
 * The device's own motion sensors -> samples in SI units.
 *
 * Axes: rotationRate.alpha, beta and gamma are the rates about x, y and z, the axes that
 * acceleration is measured along. (Until 2017 the specification called them z, x and y, as the
 * angles of deviceorientation still are; every browser did the former, and the specification
 * followed: github.com/w3c/deviceorientation/issues/44. tests/export/test_web.py checks it.)
 *
 * Sign: at rest an accelerometer reads +9.8 m/s^2 along the axis that points up. Safari, and with
 * it every browser on iPhone and iPad, reports the opposite sign for all three axes; its rotation
 * rates are as specified. Hence `turned`, which the page sets from `reportsOppositeSign` and lets
 * the user check against a phone that lies flat: z has to read +9.8.
 */

import { InputError } from "./errors.js";
import { GYRO_UNITS_RADS } from "./spec.js";

/** How long a stream waits for its first gyroscope reading before it does without. */
const GYRO_WAIT_S = 0.5;
const NO_EVENT_MS = 3000;

/** Samples are handed on in batches of about this length. */
const BATCH_MS = 250;

/** Whether this browser is one of those that turn the acceleration's sign round. */
export function reportsOppositeSign() {
  return navigator.vendor.startsWith("Apple");
}

/** Ask for the sensors, where the browser wants that; has to be called from a tap or click. */
export async function requestMotion() {
  if (!window.isSecureContext) {
    throw new InputError(
      "Browsers give the motion sensors only to pages opened over https or from localhost.",
    );
  }
  if (typeof DeviceMotionEvent === "undefined") {
    throw new InputError("This browser gives no access to motion sensors.");
  }
  if (typeof DeviceMotionEvent.requestPermission !== "function") return;
  const answer = await DeviceMotionEvent.requestPermission().catch((error) => error.message);
  if (answer !== "granted") {
    throw new InputError(
      `The browser refused the motion sensors (${answer}). Allow “motion and orientation access” ` +
        "in its settings for this site, then reload the page.",
    );
  }
}

/**
 * Samples of the device, in batches, until `signal` is aborted. `turned()` says whether to turn
 * the acceleration's sign round; it is asked at every event.
 */
export async function* motionSamples(signal, turned) {
  const events = [];
  let heard = false; // an event that carries an acceleration has come
  let firstS = null;
  let hasGyro = null;
  let wake = () => {};
  const listen = (event) => {
    const reading = readEvent(event, turned());
    if (!reading) return;
    heard = true;
    firstS ??= reading.tS;
    // Some browsers start the accelerometer first; a stream cannot gain a gyroscope later.
    if (hasGyro === null) {
      if (reading.gyro.some(Number.isFinite)) hasGyro = true;
      else if (reading.tS - firstS < GYRO_WAIT_S) return;
      else hasGyro = false;
    }
    events.push(reading);
  };
  const started = performance.now();
  addEventListener("devicemotion", listen);
  signal.addEventListener("abort", () => wake());
  try {
    while (!signal.aborted) {
      await new Promise((resolve) => {
        wake = resolve;
        setTimeout(resolve, BATCH_MS);
      });
      if (!heard && !signal.aborted && performance.now() - started > NO_EVENT_MS) {
        throw new InputError("No motion arrives: this device has no sensors, or withholds them.");
      }
      if (events.length) yield toSamples(events.splice(0), hasGyro);
    }
  } finally {
    removeEventListener("devicemotion", listen);
  }
}

/** One event in SI units, or null where it carries no acceleration (a laptop sends such). */
function readEvent(event, turned) {
  const acc = event.accelerationIncludingGravity;
  if (acc?.x == null || acc.y == null || acc.z == null) return null;
  const sign = turned ? -1 : 1;
  const { alpha, beta, gamma } = event.rotationRate ?? {};
  return {
    tS: event.timeStamp / 1000,
    acc: [sign * acc.x, sign * acc.y, sign * acc.z],
    gyro: [alpha, beta, gamma].map((rate) => (rate ?? NaN) * GYRO_UNITS_RADS["deg/s"]),
  };
}

function toSamples(readings, hasGyro) {
  const rows = readings.map((r) => (hasGyro ? [...r.acc, ...r.gyro] : r.acc));
  return {
    tS: Float64Array.from(readings, (r) => r.tS),
    channels: rows[0].map((_, c) => Float64Array.from(rows, (row) => row[c])),
  };
}
