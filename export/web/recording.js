/**
 * Recorded files -> samples in SI units (edge/recording.py).
 *
 * A recording is a text file with one sample a row and named columns. Columns are found by name
 * and units by what the name says; nothing is converted on a guess.
 */

import { InputError } from "./errors.js";
import { ACC_UNITS_MPS2, GYRO_UNITS_RADS, STANDARD_GRAVITY_MPS2, TIME_UNITS_S } from "./spec.js";

const MIN_RATE_HZ = 10;
const MAX_RATE_HZ = 1000;
const RATE_TOLERANCE = 0.1;
const SNIFF_ROWS = 20000;
const HEADER_LINES = 30;
const MAX_PLAUSIBLE_RADS = 40;
const CHUNK_ROWS = 2000;

// Column names as letters and digits only, {} standing for the axis. A unit that an app's column
// implies without saying it stands beside the name.
const ACC_NAMES = [
  ["a{}"], ["acc{}"], ["{}acc"], ["accel{}"], ["acceleration{}"], ["accelerometer{}"],
  ["accelerometeracceleration{}"], ["totalacceleration{}"],
  ["gf{}", "g"], // Physics Toolbox Sensor Suite: g-force
];
const GYRO_NAMES = [
  ["g{}"], ["gyr{}"], ["gyro{}"], ["{}gyro"], ["gyroscope{}"], ["gyrorotation{}"],
  ["rotationrate{}"], ["angularvelocity{}"],
  ["w{}", "rad/s"], // Physics Toolbox Sensor Suite
];
const TIME_NAMES = [
  "time", "t", "ts", "timestamp", "epoch", "sampletime", "elapsed", "secondselapsed", "seconds",
];
const GRAVITY_FREE = [
  ["useracceleration{}"], ["linearacceleration{}"], ["linacc{}"], ["freeacc{}"],
];

const UNIT_SPELLINGS = new Map(Object.entries({
  "m/s^2": "m/s^2", "m/s2": "m/s^2", "m/s²": "m/s^2", mps2: "m/s^2", ms2: "m/s^2",
  g: "g", mg: "mg",
  "rad/s": "rad/s", rads: "rad/s", radps: "rad/s",
  "deg/s": "deg/s", "°/s": "deg/s", dps: "deg/s", degs: "deg/s",
  mdps: "mdeg/s", "mdeg/s": "mdeg/s",
  s: "s", sec: "s", seconds: "s", ms: "ms", us: "us", "µs": "us", ns: "ns",
}));

/** A recording that has been read: what was detected, and its samples. */
class Recording {
  constructor(summary, notes, samples) {
    this.summary = summary;
    this.notes = notes;
    this.samples = samples;
  }

  /** The samples in pieces. */
  *chunks() {
    const { tS, channels } = this.samples;
    for (let at = 0; at < tS.length; at += CHUNK_ROWS) {
      const end = at + CHUNK_ROWS;
      yield { tS: tS.subarray(at, end), channels: channels.map((c) => c.subarray(at, end)) };
    }
  }
}

/**
 * Read a recording from its text. `units` may name acc, gyro and time units; without one, the
 * file's own word is taken.
 */
export function readRecording(name, text, units = {}) {
  const lines = text.split(/\r\n|\n|\r/);
  if (lines.at(-1) === "") lines.pop();
  if (!lines.length) throw new InputError(`${name} is empty.`);
  if (/[\0\uFFFD]/.test(lines.slice(0, HEADER_LINES).join(""))) {
    throw new InputError(`${name} is not a text file; export the recording as CSV.`);
  }
  const layout = findLayout(name, lines);
  const notes = [];
  const columns = readColumns(name, lines, layout, notes);
  const [time, ...channels] = columns;
  if (time.length < 2) {
    throw new InputError(`${name}: ${time.length} samples below the header; nothing to replay.`);
  }
  const head = columns.map((column) => column.subarray(0, SNIFF_ROWS));
  const [timeUnit, rateHz] = checkTime(name, layout, head[0], units.time);
  const accUnit = checkAcc(name, layout, head.slice(1, 4), units.acc);
  const gyroUnit = checkGyro(name, layout, head.slice(4), units.gyro, notes);
  const scaled = (column, factor) => column.map((value) => value * factor);
  const samples = {
    tS: scaled(time, TIME_UNITS_S[timeUnit]),
    channels: channels.map((column, c) =>
      scaled(column, c < 3 ? ACC_UNITS_MPS2[accUnit] : GYRO_UNITS_RADS[gyroUnit]),
    ),
  };
  const summary =
    `${name}: ${rateHz.toFixed(1)} Hz, time ${layout.time.name} in ${timeUnit}, ` +
    `acc ${layout.acc[0].name}.. in ${accUnit}, ` +
    (gyroUnit ? `gyro ${layout.gyro[0].name}.. in ${gyroUnit}` : "no gyroscope");
  return new Recording(summary, notes, samples);
}

function findLayout(name, lines) {
  const head = lines.slice(0, HEADER_LINES);
  let most = 1;
  let best = "";
  for (const [index, line] of head.entries()) {
    for (const delimiter of [",", ";", "\t"]) {
      const cells = splitRow(line, delimiter);
      const columns = cells.map(describeColumn);
      const layout = matchColumns(delimiter, index, columns);
      if (layout) return layout;
      if (findAxes(columns, GRAVITY_FREE).length) {
        throw new InputError(
          `${name}, line ${index + 1}: has acceleration without gravity only (user or linear ` +
            "acceleration). Its direction relative to gravity is lost and cannot be put back: " +
            "record the raw (total) accelerometer instead.",
        );
      }
      if (cells.length > most) {
        most = cells.length;
        best = ` Line ${index + 1} has: ${cells.map((c) => c.trim()).join(", ")}.`;
      }
    }
  }
  throw new InputError(
    `${name}: no row names a time column and three accelerometer columns in its first ` +
      `${head.length} lines. Expected names such as time,ax,ay,az,gx,gy,gz or ` +
      `“Time (s),Acceleration x (m/s^2),...”.${best}`,
  );
}

/** The cells of a line; quotes as in CSV, but no line break inside them. */
function splitRow(line, delimiter) {
  if (!line.includes('"')) return line.split(delimiter);
  const cells = [];
  let cell = "";
  let quoted = false;
  for (let i = 0; i < line.length; i++) {
    const letter = line[i];
    if (quoted && letter === '"' && line[i + 1] === '"') cell += line[++i];
    else if (letter === '"') quoted = !quoted;
    else if (letter === delimiter && !quoted) cells.push(cell), (cell = "");
    else cell += letter;
  }
  return [...cells, cell];
}

/** Split a column's name into what it measures and its unit: "Acc X (g)", "ax_mps2". */
function describeColumn(cell, index) {
  const name = cell.trim();
  const match = /^(.*?)\s*[([]([^)\]]*)[)\]]$/.exec(name);
  let base = match ? match[1] : name;
  let unit = match ? match[2] : null;
  const words = name.split("_");
  for (const nWords of [2, 1]) { // gyro_x_rad_s, ax_mps2
    const suffix = words.slice(-nWords).join("/").toLowerCase();
    if (unit === null && words.length > nWords && UNIT_SPELLINGS.has(suffix)) {
      base = words.slice(0, -nWords).join("_");
      unit = suffix;
    }
  }
  const known = UNIT_SPELLINGS.get((unit ?? "").trim().toLowerCase().replaceAll(" ", ""));
  return { index, name, base: base.toLowerCase().replace(/[^a-z0-9]/g, ""), unit: known ?? null };
}

function findAxes(columns, names) {
  for (const [pattern, implied] of names) {
    const found = ["x", "y", "z"].map((axis) =>
      columns.find((column) => column.base === pattern.replace("{}", axis)),
    );
    if (found.every(Boolean)) return found.map((c) => ({ ...c, unit: c.unit ?? implied ?? null }));
  }
  return [];
}

function matchColumns(delimiter, headerIndex, columns) {
  const acc = findAxes(columns, ACC_NAMES);
  const gyro = findAxes(columns, GYRO_NAMES);
  const times = TIME_NAMES.flatMap((name) => columns.filter((column) => column.base === name));
  if (!acc.length || !times.length) return null;
  const time = { ...times[0] };
  if (time.unit === null && time.base.includes("second")) time.unit = "s";
  const wanted = [time, ...acc, ...gyro];
  return { delimiter, headerIndex, nColumns: columns.length, time, acc, gyro, wanted };
}

/** The wanted columns below the header; empty cells are NaN. */
function readColumns(name, lines, layout, notes) {
  const first = layout.headerIndex + 1;
  const columns = layout.wanted.map(() => new Float64Array(lines.length - first));
  let n = 0;
  for (let at = first; at < lines.length; at++) {
    const cells = splitRow(lines[at], layout.delimiter);
    if (!cells.some(Boolean)) continue;
    if (cells.length < layout.nColumns) {
      if (at === lines.length - 1) {
        notes.push(`line ${at + 1}, the last one, is cut off: left out`);
        break;
      }
      throw new InputError(
        `${name}, line ${at + 1}: ${cells.length} fields, expected ${layout.nColumns} as in the ` +
          `header (line ${first}); mend or delete the line.`,
      );
    }
    layout.wanted.forEach((column, c) => {
      columns[c][n] = toNumber(cells[column.index], layout.delimiter, name, at + 1, column);
    });
    n++;
  }
  return columns.map((column) => column.subarray(0, n));
}

// Number() would take the empty string for 0 and "0x1F" for 31.
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

function toNumber(cell, delimiter, name, line, column) {
  let text = cell.trim();
  if (delimiter !== ",") text = text.replace(",", "."); // decimal comma
  if (NUMBER.test(text)) return Number(text);
  if (/^([+-]?(nan|inf|infinity)|na|null|none|)$/i.test(text)) return NaN; // left out later
  throw new InputError(
    `${name}, line ${line}: column “${column.name}” holds “${text}”, expected a number; mend or ` +
      "delete the line.",
  );
}

function median(values) {
  return quantile(values, 0.5);
}

/** With linear interpolation between the two nearest, as NumPy does. */
function quantile(values, q) {
  const sorted = Float64Array.from(values).sort();
  const at = q * (sorted.length - 1);
  const low = Math.floor(at);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (at - low) * (sorted[high] - sorted[low]);
}

const short = (value) => Number(value.toPrecision(4)).toString();

function checkTime(name, layout, stamps, asked) {
  const unit = asked || layout.time.unit || "s";
  const finite = stamps.filter(Number.isFinite);
  const steps = finite.subarray(1).map((t, i) => t - finite[i]).filter((step) => step > 0);
  if (!steps.length) {
    throw new InputError(`${name}: column “${layout.time.name}” never rises; it is not a time.`);
  }
  const step = median(steps);
  const rate = (candidate) => 1 / (step * TIME_UNITS_S[candidate]);
  const plausible = (candidate) =>
    rate(candidate) >= MIN_RATE_HZ * (1 - RATE_TOLERANCE) &&
    rate(candidate) <= MAX_RATE_HZ * (1 + RATE_TOLERANCE);
  if (plausible(unit)) return [unit, rate(unit)];
  const other = Object.keys(TIME_UNITS_S).find(plausible);
  const cure = other
    ? `It would be ${rate(other).toFixed(0)} Hz in ${other}: choose that time unit.`
    : `The page takes ${MIN_RATE_HZ} to ${MAX_RATE_HZ} Hz.`;
  throw new InputError(
    `${name}: column “${layout.time.name}” rises by ${short(step)} a row, which as ${unit} is ` +
      `${short(rate(unit))} Hz. ${cure}`,
  );
}

/**
 * The accelerometer's unit, if the signal agrees: the median |acc| of anything worn is about 1 g,
 * whatever the wearer does.
 */
function checkAcc(name, layout, acc, asked) {
  const magnitude = acc[0].map((x, i) => Math.sqrt(x ** 2 + acc[1][i] ** 2 + acc[2][i] ** 2));
  const finite = magnitude.filter(Number.isFinite);
  if (!finite.length) {
    throw new InputError(`${name}: the accelerometer columns hold no number.`);
  }
  const middle = median(finite);
  const declared = asked || layout.acc[0].unit;
  const unit = declared || "m/s^2";
  const plausible = (candidate) => {
    const inG = (middle * ACC_UNITS_MPS2[candidate]) / STANDARD_GRAVITY_MPS2;
    return inG >= 0.5 && inG <= 2;
  };
  if (plausible(unit)) return unit;
  const source = asked ? "was chosen" : declared ? "the header says" : "is expected";
  const other = Object.keys(ACC_UNITS_MPS2).find(plausible);
  const cure = other
    ? `It looks like ${other}: choose that acceleration unit. (If the app removed gravity, it ` +
      "cannot be used.)"
    : "In no known unit is it near 1 g: if gravity was removed (linear or user acceleration), " +
      "record the raw accelerometer instead.";
  throw new InputError(
    `${name}: the median |acceleration| (${layout.acc[0].name}..) is ${short(middle)}, but ` +
      `${unit} ${source}, where a worn device reads about ` +
      `${short(STANDARD_GRAVITY_MPS2 / ACC_UNITS_MPS2[unit])}. ${cure}`,
  );
}

/** The gyroscope's unit, null without one; adds to `notes` what the user should know. */
function checkGyro(name, layout, gyro, asked, notes) {
  if (!layout.gyro.length) {
    notes.push(
      "no gyroscope columns: labels rest on the accelerometer alone and are less certain",
    );
    return null;
  }
  const declared = asked || layout.gyro[0].unit;
  const unit = declared || "rad/s";
  const finite = gyro.flatMap((column) => Array.from(column.filter(Number.isFinite), Math.abs));
  const peak = finite.length ? quantile(finite, 0.999) : 0;
  if (peak * GYRO_UNITS_RADS[unit] > MAX_PLAUSIBLE_RADS) {
    throw new InputError(
      `${name}: the gyroscope (${layout.gyro[0].name}..) reaches ${short(peak)}, which as ` +
        `${unit} is more than any wearable measures. If it is in deg/s, choose that rotation unit.`,
    );
  }
  if (!declared) {
    notes.push("the gyroscope's unit is not stated: taken as rad/s; if it is not, choose it");
  }
  return unit;
}
