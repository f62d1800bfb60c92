/** Reads the arrays of a NumPy .npz file (a ZIP of .npy files). */

import { InputError } from "./errors.js";

const END_OF_DIRECTORY = 0x06054b50;
const STORED = 0;
const DEFLATED = 8;

/**
 * Arrays by name, each {shape, data}; data is a Float32Array whatever the float type in the file.
 * Sizes and offsets come from the directory at the file's end, because the local headers that
 * NumPy writes leave the sizes to a ZIP64 field.
 */
export async function readNpz(buffer) {
  const view = new DataView(buffer);
  let end = buffer.byteLength - 22;
  while (end >= 0 && view.getUint32(end, true) !== END_OF_DIRECTORY) end--;
  if (end < 0) throw new InputError("not a ZIP file");
  const arrays = {};
  let at = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left--) {
    const method = view.getUint16(at + 10, true);
    const size = view.getUint32(at + 20, true);
    const nameLength = view.getUint16(at + 28, true);
    const local = view.getUint32(at + 42, true);
    const name = new TextDecoder().decode(new Uint8Array(buffer, at + 46, nameLength));
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    const bytes = await unpacked(new Uint8Array(buffer, start, size), method, name);
    arrays[name.replace(/\.npy$/, "")] = readNpy(bytes, name);
    at += 46 + nameLength + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
  return arrays;
}

async function unpacked(bytes, method, name) {
  if (method === STORED) return bytes;
  if (method !== DEFLATED) throw new InputError(`${name}: packed by ZIP method ${method}`);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** One .npy array: a magic number, a version, a header in Python's syntax, the numbers. */
function readNpy(bytes, name) {
  if (String.fromCharCode(...bytes.subarray(1, 6)) !== "NUMPY") {
    throw new InputError(`${name}: not a NumPy array`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const wide = bytes[6] > 1; // from version 2 on the header's length takes four bytes
  const headerAt = wide ? 12 : 10;
  const dataAt = headerAt + (wide ? view.getUint32(8, true) : view.getUint16(8, true));
  const header = new TextDecoder("latin1").decode(bytes.subarray(headerAt, dataAt));
  const type = /'descr': '([^']*)'/.exec(header)?.[1];
  const shape = (/'shape': \(([^)]*)\)/.exec(header)?.[1] ?? "").match(/\d+/g)?.map(Number) ?? [];
  if (!/'fortran_order': False/.test(header)) throw new InputError(`${name}: not in row order`);
  const n = shape.reduce((a, b) => a * b, 1);
  const data = new Float32Array(n);
  if (type === "<f4") {
    for (let i = 0; i < n; i++) data[i] = view.getFloat32(dataAt + 4 * i, true);
  } else if (type === "<f2") {
    for (let i = 0; i < n; i++) data[i] = float16(view.getUint16(dataAt + 2 * i, true));
  } else {
    throw new InputError(`${name}: holds ${type}, expected float16 or float32`);
  }
  return { shape, data };
}

/** IEEE 754 half precision; DataView.getFloat16 is younger than the phones this should run on. */
function float16(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
