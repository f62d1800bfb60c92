/** The preprocessing contract: what the encoder is fed (edge/spec.py), and the units' factors. */

export const SIGNAL = {
  rate_hz: 200,
  window_s: 5.0,
  channels: ["ax", "ay", "az", "gx", "gy", "gz"],
  units: ["m/s^2", "m/s^2", "m/s^2", "rad/s", "rad/s", "rad/s"],
  missing: "NaN",
};

export const WINDOW_SAMPLES = Math.round(SIGNAL.window_s * SIGNAL.rate_hz);
export const N_CHANNELS = SIGNAL.channels.length;

export const STANDARD_GRAVITY_MPS2 = 9.80665;

export const ACC_UNITS_MPS2 = {
  "m/s^2": 1,
  g: STANDARD_GRAVITY_MPS2,
  mg: STANDARD_GRAVITY_MPS2 / 1000,
};

export const GYRO_UNITS_RADS = {
  "rad/s": 1,
  "deg/s": Math.PI / 180,
  "mdeg/s": Math.PI / 180000,
};

export const TIME_UNITS_S = { s: 1, ms: 1e-3, us: 1e-6, ns: 1e-9 };
