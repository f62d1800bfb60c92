"""The C encoder, compiled here and checked against the Python side; the sketch, run against
stand-ins for the Arduino libraries."""

from __future__ import annotations

import ctypes
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge import framing, native
from firmware_bridge.native import Description, NativeDecoder, NativeStreamDecoder

FIRMWARE = Path(native.__file__).parent / "firmware"
CC, CXX = shutil.which("gcc") or shutil.which("cc"), shutil.which("g++") or shutil.which("c++")
STRICT = ["-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion", "-Wshadow"]
needs_cc = pytest.mark.skipif(CC is None, reason="no C compiler here")
needs_cxx = pytest.mark.skipif(CC is None or CXX is None, reason="no C++ compiler here")

INT16 = st.integers(-(2**15), 2**15 - 1)


class CDescription(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("rate_mhz", ctypes.c_uint32),
        ("acc_scale", ctypes.c_float),
        ("gyro_scale", ctypes.c_float),
        ("battery_percent", ctypes.c_uint8),
    )


class Encoder:
    """aura_edge.c behind ctypes."""

    def __init__(self, library: Path) -> None:
        self._c = ctypes.CDLL(str(library))
        for name in ("encode_description", "encode_samples", "samples_that_fit", "frame"):
            getattr(self._c, f"aura_edge_{name}").restype = ctypes.c_size_t

    def description(
        self, name: bytes, rate_mhz: int, acc: float, gyro: float, battery: int, restarted: bool
    ) -> bytes:
        out = ctypes.create_string_buffer(48)
        said = CDescription(name, rate_mhz, acc, gyro, battery)
        n = self._c.aura_edge_encode_description(
            ctypes.byref(said), int(restarted), out, ctypes.c_size_t(len(out))
        )
        return out.raw[:n]

    def samples(self, index: int, time_us: int, samples: np.ndarray, room: int = 512) -> bytes:
        out = ctypes.create_string_buffer(room)
        axes = np.ascontiguousarray(samples, np.int16)
        n = self._c.aura_edge_encode_samples(
            ctypes.c_uint16(index),
            ctypes.c_uint32(time_us),
            axes.ctypes.data_as(ctypes.POINTER(ctypes.c_int16)),
            ctypes.c_size_t(len(samples)),
            out,
            ctypes.c_size_t(room),
        )
        return out.raw[:n]

    def that_fit(self, payload: int) -> int:
        return int(self._c.aura_edge_samples_that_fit(ctypes.c_size_t(payload)))

    def frame(self, message: bytes, room: int = 600) -> bytes:
        out = ctypes.create_string_buffer(room)
        n = self._c.aura_edge_frame(
            message, ctypes.c_size_t(len(message)), out, ctypes.c_size_t(room)
        )
        return out.raw[:n]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    library = tmp_path_factory.mktemp("firmware") / "aura_edge.so"
    assert CC is not None
    source = str(FIRMWARE / "aura_edge.c")
    subprocess.run([CC, *STRICT, "-shared", "-fPIC", "-o", str(library), source], check=True)
    return Encoder(library)


@needs_cc
@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**32 - 1),
    st.lists(st.tuples(*[INT16] * 6), min_size=1, max_size=42),
)
def test_samples_both_ways(
    encoder: Encoder, index: int, time_us: int, rows: list[tuple[int, ...]]
) -> None:
    samples = np.array(rows, np.int16)
    message = encoder.samples(index, time_us, samples)
    assert message == native.encode_samples(index, time_us, samples)
    (packet,) = NativeDecoder(Description("", 100, 0.5, 0.0625)).feed(message)
    assert packet.index == index and packet.device_s is not None
    assert packet.device_s[0] == pytest.approx(time_us * 1e-6)
    assert np.array_equal(packet.values, samples * np.array([0.5] * 3 + [0.0625] * 3))


@needs_cc
@settings(max_examples=300, deadline=None)
@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12).map(
        lambda text: text.encode()[:32].decode(errors="ignore")
    ),
    st.integers(100, 20_000_000),
    st.floats(2.0**-40, 1.0, width=32),
    st.floats(0.0, 0.0625, width=32),
    st.none() | st.integers(0, 100),
    st.booleans(),
)
def test_descriptions_both_ways(
    encoder: Encoder,
    name: str,
    rate_mhz: int,
    acc: float,
    gyro: float,
    battery: int | None,
    restarted: bool,
) -> None:
    sent = native.UNKNOWN_BATTERY if battery is None else battery
    message = encoder.description(name.encode(), rate_mhz, acc, gyro, sent, restarted)
    said = Description(name, rate_mhz / 1000, acc, gyro, battery, restarted)
    assert message == native.encode_description(said)
    printable = "".join(c for c in name if c.isprintable())
    got = native.decode_description(message)
    assert got == Description(printable, rate_mhz / 1000, acc, gyro, battery, restarted)


@needs_cc
@settings(max_examples=500, deadline=None)
@given(
    st.binary(min_size=1, max_size=512)
    | st.integers(1, 512).map(lambda n: b"x" * n)
    | st.tuples(st.integers(240, 270), st.integers(0, 300)).map(
        lambda n: (b"\1" * n[0] + b"\0" + b"\2" * n[1])[:512]
    )
)
def test_frames_both_ways(encoder: Encoder, message: bytes) -> None:
    frame = encoder.frame(message)
    assert frame == framing.encode_frame(message)
    assert framing.FrameSplitter(512).feed(frame) == [message]
    assert len(frame) <= len(message) + 2 + (len(message) + 2) // 254 + 2


@needs_cc
def test_what_does_not_fit_is_not_written(encoder: Encoder) -> None:
    one = np.zeros((1, 6), np.int16)
    assert encoder.samples(0, 0, one, room=19) == b"" and len(encoder.samples(0, 0, one, 20)) == 20
    assert encoder.samples(0, 0, np.zeros((0, 6))) == b""
    assert encoder.samples(0, 0, np.zeros((43, 6)), room=600) == b""
    assert encoder.description(b"n" * 33, 1000, 1.0, 0.0, 255, False) == b""
    assert len(encoder.description(b"n" * 32, 1000, 1.0, 0.0, 255, False)) == 48
    assert encoder.frame(b"") == b"" and encoder.frame(b"x" * 513) == b""
    assert encoder.frame(b"x" * 20, room=23) == b"" and len(encoder.frame(b"x" * 20, 24)) == 24
    for payload in (0, 7, 8, 19, 20, 31, 32, 244, 511, 512, 10_000):
        assert encoder.that_fit(payload) == native.samples_that_fit(payload)


SANITIZED = r"""
#include "aura_edge.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Every length and many contents, each in a heap block of exactly the room that is needed. */
int main(void)
{
    aura_edge_description said = {"", 100000, 0.001f, 0.0f, 255};
    char name[40];
    size_t n, room;
    for (n = 0; n <= 40; n++) {
        memset(name, 'n', sizeof name - 1);
        name[n < 39 ? n : 39] = 0;
        said.name = name;
        for (room = 0; room <= 50; room++) {
            uint8_t *out = malloc(room + (room == 0));
            size_t got = aura_edge_encode_description(&said, 1, out, room);
            if (got > room) { return 1; }
            free(out);
        }
    }
    for (n = 1; n <= AURA_EDGE_MAX_SAMPLES; n++) {
        const size_t length = AURA_EDGE_SAMPLES_BYTES(n);
        int16_t *axes = malloc(n * AURA_EDGE_AXES * sizeof *axes);
        uint8_t *message = malloc(length);
        uint8_t *frame = malloc(AURA_EDGE_FRAME_BYTES(length));
        size_t i, k;
        for (k = 0; k < 50; k++) {
            for (i = 0; i < n * AURA_EDGE_AXES; i++) {
                axes[i] = (int16_t)((k % 3 == 0) ? 0x0101 : rand() - RAND_MAX / 2);
            }
            if (aura_edge_encode_samples(65535, 0xFFFFFFFFu, axes, n, message, length) != length) {
                return 2;
            }
            if (aura_edge_encode_samples(0, 0, axes, n, message, length - 1) != 0) { return 3; }
            i = aura_edge_frame(message, length, frame, AURA_EDGE_FRAME_BYTES(length));
            if (i == 0 || frame[i - 1] != 0 || memchr(frame, 0, i) != frame + i - 1) { return 4; }
        }
        free(axes);
        free(message);
        free(frame);
    }
    puts("clean");
    return 0;
}
"""


@needs_cc
def test_no_byte_is_touched_beyond_the_buffers(tmp_path: Path) -> None:
    assert CC is not None
    main, program = tmp_path / "main.c", tmp_path / "main"
    main.write_text(SANITIZED)
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", f"-I{FIRMWARE}"]
    source = str(FIRMWARE / "aura_edge.c")
    built = subprocess.run(
        [CC, *STRICT, *flags, "-o", str(program), str(main), source],
        capture_output=True,
        text=True,
        check=False,
    )
    if "cannot find" in built.stderr:
        pytest.skip("no address sanitizer here")
    assert built.returncode == 0, built.stderr
    ran = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert ran.stdout == "clean\n" and not ran.stderr


# What the sketch uses of the Arduino core, ArduinoBLE (src/BLECharacteristic.h,
# src/local/BLELocalDevice.h) and Arduino_BMI270_BMM150 (src/BoschSensorClass.h), by the signatures
# of these files. The board is a script: 100 Hz with sensor samples 10, 11 and 12 missed, a central
# that reads the description and starts after 1 s and leaves after 3 s.
ARDUINO_H = r"""
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include "aura_edge.h"
extern uint32_t clock_us;
inline uint32_t micros() { return clock_us; }
inline void delay(unsigned long) {}
inline void line(const char *what, const uint8_t *bytes, size_t n) {
  printf("%s ", what);
  for (size_t i = 0; i < n; i++) printf("%02x", bytes[i]);
  printf("\n");
}
struct Usb {
  void begin(unsigned long) {}
  operator bool() { return true; }
  size_t write(uint8_t b) { line("serial", &b, 1); return 1; }
  size_t write(const uint8_t *b, size_t n) { line("serial", b, n); return n; }
  size_t println(const char *) { return 0; }
};
extern Usb Serial;
"""
BLE_H = r"""
#pragma once
#include "Arduino.h"
enum { BLERead = 2, BLEWrite = 8, BLENotify = 16 };
class BLECharacteristic {
 public:
  BLECharacteristic(const char *uuid, uint8_t properties, int valueSize, bool fixedLength = false)
      : _properties(properties), _size(valueSize) { (void)uuid; (void)fixedLength; }
  int writeValue(const uint8_t value[], int length) {
    if (length > _size) return 0;
    line(_properties == BLENotify ? "notify" : "value", value, (size_t)length);
    return 1;
  }
  const uint8_t *value() const { return &_value; }
  int valueLength() const { return 1; }
  bool written() {
    if (_properties != BLEWrite || _done || clock_us < 1000000) return false;
    return _done = true;
  }
 private:
  int _properties, _size;
  uint8_t _value = AURA_EDGE_START;
  bool _done = false;
};
class BLEService {
 public:
  BLEService(const char *) {}
  void addCharacteristic(BLECharacteristic &) {}
};
struct BLELocalDevice {
  int begin() { return 1; }
  void poll() {}
  bool connected() const { return clock_us < 3000000; }
  void setLocalName(const char *) {}
  void setDeviceName(const char *) {}
  void setAdvertisedService(const BLEService &) {}
  void addService(BLEService &) {}
  int advertise() { return 1; }
};
extern BLELocalDevice BLE;
"""
IMU_H = r"""
#pragma once
#include "Arduino.h"
struct Imu {
  int number = -1;
  int begin() { return 1; }
  int accelerationAvailable() {
    const int now = (int)(clock_us / 10000);
    if (now == number || (now >= 10 && now <= 12)) return 0;
    number = now;
    return 1;
  }
  int readAcceleration(float &x, float &y, float &z) {
    x = (float)number / 8192.0f; y = -32768 / 8192.0f; z = 1.0f;
    return 1;
  }
  int readGyroscope(float &x, float &y, float &z) {
    x = (float)number / 16.384f; y = 32768 / 16.384f; z = -2.0f / 16.384f;
    return 1;
  }
};
extern Imu IMU;
"""
MAIN = r"""
#include "ArduinoBLE.h"
#include "Arduino_BMI270_BMM150.h"
uint32_t clock_us = 0;
Usb Serial;
BLELocalDevice BLE;
Imu IMU;
#include "nano33ble.ino"
int main() {
  for (setup(); clock_us < 4000000; clock_us += 500) loop();
}
"""


@needs_cxx
def test_the_sketch_against_stand_ins(tmp_path: Path) -> None:
    for name, text in (
        ("Arduino.h", ARDUINO_H),
        ("ArduinoBLE.h", BLE_H),
        ("Arduino_BMI270_BMM150.h", IMU_H),
        ("main.cpp", MAIN),
    ):
        (tmp_path / name).write_text(text)
    assert CC is not None and CXX is not None
    sketch, c_object, program = FIRMWARE / "nano33ble", tmp_path / "c.o", tmp_path / "main"
    subprocess.run([CC, *STRICT, "-c", "-o", c_object, FIRMWARE / "aura_edge.c"], check=True)
    flags = ["-std=c++14", "-Wall", "-Wextra", "-Werror"]
    folders = [f"-I{folder}" for folder in (FIRMWARE, tmp_path, sketch)]
    subprocess.run(
        [CXX, *flags, *folders, "-o", program, tmp_path / "main.cpp", c_object], check=True
    )
    ran = subprocess.run([str(program)], capture_output=True, text=True, check=True)
    lines = [line.split() for line in ran.stdout.splitlines()]
    sent = {what: [bytes.fromhex(h) for w, h in lines if w == what] for what, _ in lines}

    usb = NativeStreamDecoder()
    packets = [p for data in sent["serial"] for p in usb.feed(data)]
    index = np.concatenate(
        [p.index + np.arange(len(p.values)) for p in packets if p.index is not None]
    )
    expected = [i for i in range(400) if i not in (10, 11, 12)]
    assert index.tolist() == expected[: len(index)] and len(index) >= 393 and not usb.counts
    values = np.concatenate([p.values for p in packets])
    times = np.concatenate([p.device_s for p in packets if p.device_s is not None])
    assert np.allclose(times, index * 0.01, atol=1e-9)
    acc, gyro = 9.80665 / 8192, math.radians(1) / 16.384
    columns = [index * acc, np.full(len(index), -4 * 9.80665), np.full(len(index), 9.80665)]
    columns += [index * gyro, np.full(len(index), 32767 * gyro), np.full(len(index), -2 * gyro)]
    assert np.allclose(values, np.stack(columns, axis=1), rtol=1e-6)

    (description,) = sent["value"]
    said = native.decode_description(description)
    assert isinstance(said, Description) and said.rate_hz == 100 and not said.restarted
    air = NativeDecoder(said)
    over_ble = [p for data in sent["notify"] for p in air.feed(data)]
    assert 190 <= sum(len(p.values) for p in over_ble) <= 204 and not air.counts
