"""Decoders of BLE devices against vendor vectors, field captures, and what the tests encode."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.ble_devices import (
    DEVICES,
    dot,
    edge_ml,
    metamotion,
    movesense,
    muse,
    openearable,
    polar,
    recognise,
    thingy,
    witmotion,
)
from firmware_bridge.ble_devices.conversation import UnreadableError
from firmware_bridge.errors import AuraError
from firmware_bridge.link import Advert, BleDevice, Decoder, Packet

G = 9.80665
DEG = math.pi / 180

OE1_SCHEME = (
    bytes.fromhex("01000c")
    + b"ACC_GYRO_MAG"
    + b"\x09"
    + b"".join(
        bytes([6, len(group)]) + group + b"\x01" + axis + bytes([len(unit)]) + unit
        for group, unit in ((b"ACC", b"g"), (b"GYRO", b"dps"), (b"MAG", b"uT"))
        for axis in (b"X", b"Y", b"Z")
    )
)  # OpenEarable/open-earable src/custom_sensor/SensorID_Earable.h, its first sensor

NICLA_SCHEME = (
    b"\x08\x04\x0cACCELERATION\x03\x06\x03ACC\x01X\x01g\x06\x03ACC\x01Y\x01g\x06\x03ACC\x01Z"
    b"\x01g\r\tGYROSCOPE\x03\x06\x04GYRO\x01X\x03dps\x06\x04GYRO\x01Y\x03dps\x06\x04GYRO\x01Z"
    b"\x03dps\x16\x0cMAGNETOMETER\x03\x06\x03MAG\x01X\x02uT\x06\x03MAG\x01Y\x02uT\x06\x03MAG"
    b"\x01Z\x02uT+\x0bORIENTATION\x03\x06\x03ORI\x07Heading\x03deg\x06\x03ORI\x05Pitch\x03deg"
    b"\x06\x03ORI\x04Roll\x03deg\x80\x0bTHERMOMETER\x01\x06\x04TEMP\x0bTemperature\x03\xc2\xb0"
    b"C\x82\nHYGROMETER\x01\x06\x03HUM\x08Humidity\x01%\x81\tBAROMETER\x01\x06\x04BARO\x08Pres"
    b"sure\x03kPa\x83\x03GAS\x03\x06\x03GAS\x03Gas\x00\x06\x03HUM\x08Humidity\x01%\x06\x03MAG"
    b"\x01X\x02uT"
)
"""As it is on the board: edge-ml/EdgeML-Arduino Nicla_Parse_Scheme.cpp."""

OE1_STREAM = edge_ml.streams(edge_ml.parsed_scheme(OE1_SCHEME), acc_unit="m/s^2")[0]

Make = Callable[[], Decoder]


def rows(*samples: Sequence[float], acc: float = 0.0, gyro: float = 0.0) -> np.ndarray:
    """Samples in the units of the wire, in SI."""
    si = [acc] * 3 * bool(acc) + [gyro] * 3 * bool(gyro)
    return np.array(samples, float) * si


VECTORS: dict[str, tuple[Make, str, str, np.ndarray, list[float] | None]] = {
    "4 Polar gyro, compressed, kind 0 (GyrDataTest.kt)": (
        lambda: polar.PmdDecoder("gyro", 52),
        "05ffffffffffffff7f80eaff08000d000301df00",
        "gyro",
        rows((-22, 8, 13), (-23, 11, 16), gyro=DEG),
        [(2**63 - 1) * 1e-9 - 1 / 52, (2**63 - 1) * 1e-9],
    ),
    "Polar gyro, compressed, floats (GyrDataTest.kt)": (
        lambda: polar.PmdDecoder("gyro", 52),
        "050094357700000000810000803f000020410000a0411c010000a001000008cdccec0d",
        "gyro",
        rows((1, 10, 20), (10, 20, 1.1), gyro=DEG),
        [2 - 1 / 52, 2],
    ),
    "Polar gyro, compressed, floats with a factor (GyrDataTest.kt)": (
        lambda: polar.PmdDecoder("gyro", 52, 0.5),
        "050094357700000000810000803f000020410000a0411c010000a001000008cdccec0d",
        "gyro",
        rows((0.5, 5, 10), (5, 10, 0.55), gyro=DEG),
        [2 - 1 / 52, 2],
    ),
    "Polar acc, compressed, kind 1 (AccDataTest.kt)": (
        lambda: polar.PmdDecoder("acc", 50),
        "02650000000000000081f1ff1400f00306017b0f08",
        "acc",
        rows((-15, 20, 1008), (-20, 17, 1008), acc=G / 1000),
        [101e-9 - 0.02, 101e-9],
    ),
    "5 Polar acc, raw, kind 1": (
        lambda: polar.PmdDecoder("acc", 200),
        "020000a43993435208010500f6ff18fc",
        "acc",
        rows((5, -10, -1000), acc=G / 1000),
        [599616000.0],
    ),
    "Polar acc, raw, kind 0": (
        lambda: polar.PmdDecoder("acc", 50),
        "02" + "00" * 8 + "00" + "7f80ff",
        "acc",
        rows((127, -128, -1), acc=G / 1000),
        [0.0],
    ),
    "Polar acc, raw, kind 2": (
        lambda: polar.PmdDecoder("acc", 50),
        "02" + "00" * 8 + "02" + "ffff7f000080ffffff",
        "acc",
        rows((2**23 - 1, -(2**23), -1), acc=G / 1000),
        [0.0],
    ),
    "7 Movesense": (
        lambda: movesense.Imu6Decoder(26),
        "0263393000000000000000000000c3f51c410000803f0000004000004040"
        "000020410000a0410000f041000020c10000a0c1000034c3",
        "imu",
        np.array([(0, 0, 9.81, 10, 20, 30), (1, 2, 3, -10, -20, -180)]) * ([1] * 3 + [DEG] * 3),
        [12.345, 12.345 + 1 / 26],
    ),
    "8 WitMotion": (
        witmotion.WitDecoder,
        "5561000000000008004000c00000000000000000",
        "imu",
        rows((0, 0, 1, 1000, -1000, 0), acc=G, gyro=DEG),
        None,
    ),
    "11 Thingy": (
        thingy.ThingyDecoder,
        "0000000000042000c0ff0000a00000000000",
        "imu",
        rows((0, 0, 1, 1, -2, 0), acc=G, gyro=DEG),
        None,
    ),
    "12 Thingy, captured (bluepy #377)": (
        thingy.ThingyDecoder,
        "f3ffbdff02fceaff0500f6ff000000000000",
        "imu",
        rows((-13 / 1024, -67 / 1024, -1022 / 1024, -22 / 32, 5 / 32, -10 / 32), acc=G, gyro=DEG),
        None,
    ),
    "14 OpenEarable 2": (
        openearable.OpenEarableDecoder,
        "002487d61200000000000000000000000000c3f51c410000b44200000000000000000000803f"
        "0000004000004040",
        "imu",
        np.array([(0, 0, 9.81, math.pi / 2, 0, 0)]),
        [1.234567],
    ),
    "16 DOT, mode 26": (
        lambda: dot.DotDecoder(dot.CUSTOM_5),
        "1b4100000000803f0000000000000000000000000000000000000000c3f51c41"
        "000034430000000000000000" + "00" * 19,
        "imu",
        np.array([(0, 0, 9.81, math.pi, 0, 0)]),
        [0.016667],
    ),
    "17 MetaMotion acc at 4 g (test_accelerometer_bmi160.py)": (
        lambda: metamotion.MetaMotionDecoder(metamotion.ACC, G / 8192),
        "030416c494a22ad0",
        "acc",
        rows((-1.872, -2.919, -1.495), acc=G),
        None,
    ),
    "MetaMotion acc at 8 g, packed (test_accelerometer_bmi160.py)": (
        lambda: metamotion.MetaMotionDecoder(metamotion.ACC),
        "031c62b7530de9fd16d04d0e57028affa1050a01",
        "acc",
        rows((-4.539, 0.833, -0.131), (-2.995, 0.894, 0.146), (-0.029, 0.352, 0.065), acc=G),
        None,
    ),
    "18 MetaMotion gyro at 500 deg/s (test_gyro_bmi160.py)": (
        lambda: metamotion.MetaMotionDecoder(metamotion.GYRO, DEG / 65.6),
        "13053e43ff7f0080",
        "gyro",
        rows((262.409, 499.497, -499.512), gyro=DEG),
        None,
    ),
    "MetaMotion gyro at 1000 deg/s, packed (test_gyro_bmi160.py)": (
        lambda: metamotion.MetaMotionDecoder(metamotion.GYRO, DEG / 32.8),
        "13070915ad2608de8a1a0d2665e48d20ac2773ec",
        "gyro",
        rows(
            (164.177, 301.860, -265.122),
            (207.134, 296.982, -215.457),
            (254.055, 309.634, -152.591),
            gyro=DEG,
        ),
        None,
    ),
    "Muse acc": (
        lambda: muse.MuseDecoder("acc"),
        "0000" + "000000004000" + "c00000000000" + "0001fffe0003",
        "acc",
        rows((0, 0, 16384), (-16384, 0, 0), (1, -2, 3), acc=0.0000610352 * G),
        None,
    ),
    "Muse gyro": (
        lambda: muse.MuseDecoder("gyro"),
        "0000" + "7fff80000001" + "000000000000" * 2,
        "gyro",
        rows((32767, -32768, 1), (0, 0, 0), (0, 0, 0), gyro=0.0074768 * DEG),
        None,
    ),
    "edge-ml, OpenEarable 1, size of the values": (
        lambda: edge_ml.SchemeDecoder(OE1_STREAM),
        "0024" + "10270000" + struct.pack("<9f", 0, 0, 9.75, 90, 0, -180, 1, 2, 3).hex(),
        "imu",
        np.array([(0, 0, 9.75, math.pi / 2, 0, -math.pi)]),
        [10.0],
    ),
    "edge-ml, OpenEarable 1, size of the notification": (
        lambda: edge_ml.SchemeDecoder(OE1_STREAM),
        "002a" + "10270000" + struct.pack("<9f", 0, 0, 9.75, 90, 0, -180, 1, 2, 3).hex(),
        "imu",
        np.array([(0, 0, 9.75, math.pi / 2, 0, -math.pi)]),
        [10.0],
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_vectors(name: str) -> None:
    make, wire, kind, values, device_s = VECTORS[name]
    decoder = make()
    (packet,) = decoder.feed(bytes.fromhex(wire))
    assert packet.kind == kind
    # Vendor tests of MetaMotion have three decimals.
    unit = {"acc": G, "gyro": DEG, "imu": 1.0}[kind]
    tolerance = 0.00051 * unit if "MetaMotion" in name else 1e-6
    np.testing.assert_allclose(packet.values, values, rtol=1e-6, atol=tolerance)
    if device_s is None:
        assert packet.device_s is None
    else:
        assert packet.device_s is not None
        np.testing.assert_allclose(packet.device_s, device_s, rtol=1e-15, atol=1e-9)
    assert not decoder.counts


def test_the_captured_thingy_lay_still() -> None:
    (packet,) = thingy.ThingyDecoder().feed(bytes.fromhex("f3ffbdff02fceaff0500f6ff" + "00" * 6))
    assert np.linalg.norm(packet.values[0, :3]) / G == pytest.approx(1.0003, abs=1e-4)
    np.testing.assert_allclose(packet.values[0, 3:] / DEG, (-0.69, 0.16, -0.31), atol=0.005)


COMMANDS = {
    "1 Polar acc 52 Hz, 16 bit, 8 g, 3 channels": (
        polar.start_command("acc", {0: 52, 1: 16, 2: 8, 4: 3}),
        "0202000134000101100002010800040103",
    ),
    "2 Polar gyro 52 Hz, 16 bit, 2000 deg/s, 3 channels": (
        polar.start_command("gyro", {0: 52, 1: 16, 2: 2000, 4: 3}),
        "020500013400010110000201d007040103",
    ),
    "3 Polar H10 acc 200 Hz, 16 bit, 8 g": (
        polar.start_command("acc", {0: 200, 1: 16, 2: 8}),
        "02020001c8000101100002010800",
    ),
    "6 Movesense start": (
        movesense.subscribe_command("/Meas/IMU6/208"),
        "01632f4d6561732f494d55362f323038",
    ),
    "6 Movesense stop": (movesense.unsubscribe_command(), "0263"),
    "13 Thingy": (thingy.motion_config(500, 500, 500, 200, 0), "f401f401f401c80000"),
    "15 edge-ml": (edge_ml.sensor_config(0, 50.0, 0), "000000484200000000"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(name: str) -> None:
    built, expected = COMMANDS[name]
    assert built.hex() == expected


# Polar

VENDOR_ACC = (
    "7107f06a9e8d0a38be5cbeba2f96b3ee4be5adfb42b9ebbe4cfeba2f92bfee4be4b1fb12b9ecbd3c3ebb2f8fd3"
    "de4be3b5f7d2b8edbd307e7b2f8be3ce8be2baf7a2b8eebc20be7b2f88f3cecbe1bdef52f8efbc18fe3b2f8403bfcb"
    "e0c2ef32b8f0bb044ebc2e8113af0be0c6eff2f7f1b9fc7dbc2e7d279f4bdfcaebc2f7f2b8eccd7c2e7b378f4bdece"
    "e392f7f3b8e00dfd2d774b7fcbddd2df6237f5b7d44dbd2d745b6fcbdcd7d73237f6b5c88d7d2d716b4f4bdcdcd3f2"
    "36f7b4bcddfd2c6f7b3f4bdbe0cfd236f8b2b02dbe2c6c8f1fcbdae3c7a276f9"
)


def acc_frame(stamp_ns: int, content: bytes, frame_type: int = 1) -> bytes:
    return struct.pack("<BQB", 2, stamp_ns, frame_type) + content


def test_polar_vendor_frame_of_57_samples() -> None:
    """AccDataTest.kt, "process acc compressed data type 0", with its frame before at 100 ns."""
    factor = 2.44e-4
    decoder = polar.PmdDecoder("acc", 28, factor)
    decoder.feed(acc_frame(100, bytes.fromhex("71070000000000"[:12]), 0x80))
    (packet,) = decoder.feed(acc_frame(2_000_000_000, bytes.fromhex(VENDOR_ACC), 0x80))
    raw = [(1905, 27376, -29282), (1905 + 190, 27376 - 105, -29282 - 85)]
    np.testing.assert_allclose(packet.values[:2], np.array(raw) * factor * G, rtol=1e-12)
    assert packet.values.shape == (57, 3) and np.abs(packet.values).max() <= 8 * G
    assert packet.device_s is not None and not decoder.counts
    step_s = (2e9 - 100) / 57 * 1e-9
    np.testing.assert_allclose(np.diff(packet.device_s), step_s, rtol=1e-9)
    assert packet.device_s[0] == pytest.approx(100e-9 + step_s)


def delta_block(deltas: Sequence[Sequence[int]], width: int) -> bytes:
    """A block as a Polar sensor packs it."""
    stream = 0
    flat = [d for sample in deltas for d in sample]
    for i, delta in enumerate(flat):
        stream |= (delta & ((1 << width) - 1)) << (i * width)
    return bytes([width, len(deltas)]) + stream.to_bytes((width * len(flat) + 7) // 8, "little")


@st.composite
def delta_frames(draw: st.DrawFn, value_bits: int) -> tuple[bytes, list[list[int]]]:
    """Content of a frame, and the int32 samples in it."""
    top = 1 << (value_bits - 1)
    value = draw(st.lists(st.integers(-top, top - 1), min_size=3, max_size=3))
    content = b"".join(v.to_bytes(value_bits // 8, "little", signed=True) for v in value)
    samples = [value]
    for width in draw(st.lists(st.integers(0, 32), max_size=4)):
        low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if width else (0, 0)
        axis = st.integers(low, high)
        deltas = draw(st.lists(st.tuples(axis, axis, axis), max_size=9))
        content += delta_block(deltas, width)
        for delta in deltas:
            wrapped = [(v + d + 2**31) % 2**32 - 2**31 for v, d in zip(value, delta, strict=True)]
            samples.append(value := wrapped)
    return content, samples


@given(delta_frames(16))
def test_polar_deltas_of_any_width_come_back(frame: tuple[bytes, list[list[int]]]) -> None:
    content, samples = frame
    assert polar.delta_decoded(content, 2).tolist() == samples


@given(delta_frames(32))
def test_polar_float_patterns_come_back(frame: tuple[bytes, list[list[int]]]) -> None:
    content, samples = frame
    decoder = polar.PmdDecoder("gyro", 52)
    packets = decoder.feed(struct.pack("<BQB", 5, 10**9, 0x81) + content)
    with np.errstate(invalid="ignore"):
        floats = np.array(samples, np.int64).astype(np.int32).view(np.float32).astype(float)
    good = floats[np.isfinite(floats).all(axis=1)]
    assert decoder.counts["not finite"] == len(floats) - len(good)
    if len(good):
        assert np.array_equal(packets[0].values, good * DEG)
        assert packets[0].device_s is not None and len(packets[0].device_s) == len(good)
    else:
        assert packets == []


def test_polar_repeats_and_wraps() -> None:
    reference = struct.pack("<3i", 2**31 - 1, 0, -5)
    content = reference + delta_block([(1, 1, 1)], 2) + bytes([0, 3]) + delta_block([(-1, 0, 0)], 1)
    got = polar.delta_decoded(content, 4).tolist()
    assert got == [[2**31 - 1, 0, -5]] + [[-(2**31), 1, -4]] * 4 + [[2**31 - 1, 1, -4]]


@pytest.mark.parametrize(
    "content",
    [
        "",  # no reference sample
        "0100020003",  # half of one
        "010002000300" + "03",  # half of a block's head
        "010002000300" + "0301df",  # half of its deltas
        "010002000300" + "2101" + "00" * 13,  # 33 bits
        "010002000300" + "00ff" * 17,  # 4336 samples
    ],
)
def test_polar_frames_that_do_not_end_where_they_should(content: str) -> None:
    with pytest.raises(UnreadableError, match="length"):
        polar.delta_decoded(bytes.fromhex(content), 2)
    decoder = polar.PmdDecoder("acc", 52)
    assert decoder.feed(acc_frame(0, bytes.fromhex(content), 0x80)) == []
    assert decoder.counts == {"length": 1}


def test_polar_stamps_follow_the_vendors_rule_except_over_a_gap() -> None:
    decoder = polar.PmdDecoder("acc", 50)
    ten = b"\x01\x00\x02\x00\x03\x00" * 10

    def stamps_s(stamp_ns: int) -> np.ndarray:
        (packet,) = decoder.feed(acc_frame(stamp_ns, ten))
        assert packet.device_s is not None
        return packet.device_s

    np.testing.assert_allclose(stamps_s(1_000_000_000), 1.0 - 0.02 * np.arange(9, -1, -1))
    np.testing.assert_allclose(stamps_s(1_204_000_000), 1.0 + 0.0204 * np.arange(1, 11))
    assert not decoder.counts
    np.testing.assert_allclose(stamps_s(1_604_000_000), 1.604 - 0.02 * np.arange(9, -1, -1))
    assert decoder.counts == {"lost frame": 1}
    np.testing.assert_allclose(stamps_s(1_604_000_000), 1.604 - 0.02 * np.arange(9, -1, -1))
    assert decoder.counts == {"lost frame": 1, "stamp not after the last": 1}


def test_polar_settings() -> None:
    answer = bytes.fromhex("00043200190064 00c800 010110 00 0203020004000800".replace(" ", ""))
    offered = polar.parsed_settings(answer)
    assert offered == {0: (50, 25, 100, 200), 1: (16,), 2: (2, 4, 8)}
    assert polar.chosen_settings(offered) == {0: 200, 1: 16, 2: 8}
    sdk = {0: (26, 52, 104, 208, 416), 1: (16,), 2: (2, 4, 8, 16), 4: (3,)}
    assert polar.chosen_settings(sdk) == {0: 208, 1: 16, 2: 16, 4: 3}
    factor = polar.parsed_settings(b"\x05\x01" + struct.pack("<f", 0.25))
    assert polar.conversion_factor(factor) == 0.25
    assert polar.conversion_factor({}) == 1.0
    assert polar.parsed_settings(b"") == polar.parsed_settings(b"\x01") == {}
    assert polar.parsed_settings(bytes.fromhex("0200 0b0101 000134")) == {}
    assert polar.parsed_settings(bytes.fromhex("000134000b01ff")) == {0: (52,)}


@pytest.mark.parametrize("wire", ["0001", "000134", "00023400", "0001340005010000"])
def test_polar_settings_that_cannot_be_read(wire: str) -> None:
    with pytest.raises(AuraError, match=f"settings cannot be read \\({wire}\\)"):
        polar.parsed_settings(bytes.fromhex(wire))


def test_polar_settings_that_cannot_be_used() -> None:
    with pytest.raises(AuraError, match="no sample rate of 208 Hz or less"):
        polar.chosen_settings({0: (416,)})
    for bad in (float("nan"), 0.0, -1.0):
        bits = int.from_bytes(struct.pack("<f", bad), "little")
        with pytest.raises(AuraError, match="conversion factor"):
            polar.conversion_factor({5: (bits,)})


# Movesense


def imu6(stamp_ms: int, n: int, first: float = 0.0) -> tuple[bytes, np.ndarray]:
    """Payload of a packet, and its samples."""
    values = first + np.arange(6 * n, dtype=np.float32).reshape(n, 6)
    floats = np.concatenate([values[:, :3].ravel(), values[:, 3:].ravel()])
    return struct.pack("<I", stamp_ms) + floats.astype("<f4").tobytes(), values


def movesense_values(packets: list[Packet]) -> np.ndarray:
    return np.vstack([p.values for p in packets]) / ([1.0] * 3 + [DEG] * 3)


@pytest.mark.parametrize("cut", range(4 + 24 * 16 + 1))
def test_movesense_parts_split_at_any_byte(cut: int) -> None:
    decoder = movesense.Imu6Decoder(208)
    packets: list[Packet] = []
    expected = []
    for number in range(3):
        payload, values = imu6(77 * number, 16, number)
        expected.append(values)
        packets += decoder.feed(b"\x02\x63" + payload[:cut])
        packets += decoder.feed(b"\x03\x63" + payload[cut:]) if cut < len(payload) else []
    assert len(packets) == 3 and not decoder.counts
    np.testing.assert_allclose(movesense_values(packets), np.vstack(expected), rtol=1e-6)


def test_movesense_packets_of_another_size_are_understood_one_later() -> None:
    decoder = movesense.Imu6Decoder(104)  # 8 samples a packet, by extrapolation
    counts = [len(decoder.feed(b"\x02\x63" + imu6(38 * number, 4)[0])) for number in range(5)]
    assert counts == [0, 2, 1, 1, 1] and not decoder.counts


def test_movesense_recovers_from_a_first_part_taken_for_a_packet() -> None:
    decoder = movesense.Imu6Decoder(208)
    payload, values = imu6(0, 16)
    first, second = b"\x02\x63" + payload[: 4 + 24 * 5], b"\x03\x63" + payload[4 + 24 * 5 :]
    decoder.feed(first)  # its second part is lost, and it looks whole
    wrong = decoder.feed(first)
    assert [len(p.values) for p in wrong] == [5, 5]
    assert decoder.feed(second) == []
    assert decoder.counts == {"second part without the first": 1}
    right = [p for _ in range(3) for part in (first, second) for p in decoder.feed(part)]
    assert len(right) == 3
    np.testing.assert_allclose(movesense_values(right), np.vstack([values] * 3), rtol=1e-6)


def test_movesense_counts_what_is_torn() -> None:
    decoder = movesense.Imu6Decoder(104)
    payload, _ = imu6(0, 8)
    assert decoder.feed(b"\x02\x63" + payload[:50]) == []
    assert len(decoder.feed(b"\x02\x63" + payload)) == 1
    assert decoder.counts == {"second part missing": 1}
    assert decoder.feed(b"\x02\x62" + payload) == []
    assert decoder.feed(b"\x05\x63" + payload) == []
    assert decoder.feed(b"\x01\x63\xc8\x00") == []
    assert decoder.counts == {"second part missing": 1, "code": 2}
    decoder.feed(b"\x02\x63" + b"\0" * 2000)
    decoder.feed(b"\x03\x63" + b"\0" * 100)
    assert decoder.counts["length"] == 1


@pytest.mark.parametrize(
    ("wire", "status"),
    [("0163c800", 200), ("016300c8", 200), ("0163c900", 201), ("016301fb", 507), ("01639401", 404)],
)
def test_movesense_statuses_in_both_byte_orders(wire: str, status: int) -> None:
    assert movesense.result_status(bytes.fromhex(wire)) == status


# WitMotion


def wit_frame(n: int, code: int = 0x61) -> bytes:
    return bytes([0x55, code]) + struct.pack("<9h", n, -n, 2048, *[100] * 6)


@given(st.integers(1, 12), st.data())
def test_wit_frames_straddle_notifications(n: int, data: st.DataObject) -> None:
    stream = b"".join(wit_frame(i) for i in range(n))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=10).map(sorted))
    decoder = witmotion.WitDecoder()
    packets = [
        packet
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for packet in decoder.feed(stream[start:end])
    ]
    got = np.vstack([p.values for p in packets])[:, 0] / (16 * G / 32768)
    assert got == pytest.approx(np.arange(n)) and not decoder.counts


def test_wit_resynchronises_after_junk() -> None:
    decoder = witmotion.WitDecoder()
    stream = b"\x55\x51junk" + wit_frame(1) + b"\x00\x55\x55" + wit_frame(2) + wit_frame(3, 0x71)
    packets = decoder.feed(stream + wit_frame(4)[:7]) + decoder.feed(wit_frame(4)[7:])
    first = np.vstack([p.values for p in packets])[:, 0] / (16 * G / 32768)
    assert first == pytest.approx([1, 2, 4])  # 3 answers a question about registers
    assert decoder.counts == {"junk between frames": 2}


# OpenEarable 2


def test_openearable_buffered() -> None:
    values = np.arange(63, dtype=np.float32).reshape(7, 9)
    content = values.astype("<f4").tobytes() + struct.pack("<H", 10_000)
    (packet,) = openearable.OpenEarableDecoder().feed(
        struct.pack("<BBQ", 0, len(content), 5_000_000) + content
    )
    np.testing.assert_allclose(packet.values, values[:, :6] * ([1.0] * 3 + [DEG] * 3), rtol=1e-6)
    assert packet.device_s == pytest.approx(5 + 0.01 * np.arange(7))


def test_openearable_stamps_of_any_size() -> None:
    wire = struct.pack("<BBQ9f", 0, 36, 2**64 - 1, *range(9))
    (packet,) = openearable.OpenEarableDecoder().feed(wire)
    assert packet.device_s == pytest.approx([2**64 * 1e-6])


def test_openearable_counts_what_it_leaves_out() -> None:
    decoder = openearable.OpenEarableDecoder()
    nan = struct.pack("<BBQ9f", 0, 36, 0, float("nan"), *[0.0] * 8)
    wrong = [b"", nan[:-1], b"\x04" + nan[1:], struct.pack("<BBQ", 0, 0, 0), nan]
    assert [decoder.feed(w) for w in wrong] == [[]] * 5
    assert decoder.counts == {"length": 3, "other sensor": 1, "not finite": 1}


# edge-ml


def test_the_scheme_of_a_nicla() -> None:
    assert len(NICLA_SCHEME) == 334
    sensors = edge_ml.parsed_scheme(NICLA_SCHEME)
    assert [s.number for s in sensors] == [4, 13, 22, 43, 128, 130, 129, 131]
    acc, gyro = edge_ml.streams(sensors)
    assert (acc.kind, acc.sensor, acc.si) == ("acc", 4, (G,) * 3)
    assert (gyro.kind, gyro.sensor) == ("gyro", 13) and gyro.si == pytest.approx((DEG,) * 3)
    decoder = edge_ml.SchemeDecoder(acc)
    (packet,) = decoder.feed(struct.pack("<BBI3f", 4, 0xA7, 1500, 0, 0, 1) + b"\0" * 8)
    assert packet.values.tolist() == [[0, 0, G]] and packet.device_s == pytest.approx([1.5])
    assert decoder.counts == {"size byte": 1}


def test_open_earable_1_means_m_s2_where_its_scheme_says_g() -> None:
    sensors = edge_ml.parsed_scheme(OE1_SCHEME)
    assert edge_ml.streams(sensors)[0].si[0] == G
    assert OE1_STREAM.si[0] == 1.0 and OE1_STREAM.kind == "imu"


@pytest.mark.parametrize("cut", range(0, len(OE1_SCHEME)))
def test_schemes_that_end_early(cut: int) -> None:
    with pytest.raises(AuraError, match=rf"cannot be read \({cut} bytes\)"):
        edge_ml.parsed_scheme(OE1_SCHEME[:cut])


def test_schemes_without_what_is_needed() -> None:
    baro = b"\x01\x00\x04BARO\x01\x06\x04BARO\x01P\x03kPa"
    with pytest.raises(AuraError, match="no acc sensor of three axes; it has: BARO"):
        edge_ml.streams(edge_ml.parsed_scheme(baro))
    with pytest.raises(AuraError, match="it has: none"):
        edge_ml.streams([])
    stone = OE1_SCHEME.replace(b"\x01g", b"\x01?")
    with pytest.raises(AuraError, match=r"measures in '\?', expected one of m/s\^2, g, mg"):
        edge_ml.streams(edge_ml.parsed_scheme(stone))


# DOT


def test_dot_rate_quantities() -> None:
    wire = struct.pack("<I6f3h", 16667, 0, 0, 9.81, 180, 0, 0, 4096, 0, 0)
    (packet,) = dot.DotDecoder().feed(wire)
    np.testing.assert_allclose(packet.values, [(0, 0, 9.81, math.pi, 0, 0)], rtol=1e-6)


def test_dot_device_control() -> None:
    before = bytes(range(32))
    after = dot.with_rate(before, 60)
    assert after == b"\x10" + before[1:24] + b"\x3c\x00" + before[26:]
    with pytest.raises(AuraError, match="16 bytes, expected 32"):
        dot.with_rate(before[:16], 60)


# Counters and stamps that wrap


def oe1_frame(stamp_ms: int) -> bytes:
    return struct.pack("<BBI9f", 0, 36, stamp_ms, *range(9))


def dot_frame(stamp_us: int) -> bytes:
    return struct.pack("<I6f3h", stamp_us, *range(6), 0, 0, 0)


@pytest.mark.parametrize(
    ("decoder", "frame", "unit_s"),
    [
        (movesense.Imu6Decoder(26), lambda t: b"\x02\x63" + imu6(t, 2)[0], 1e-3),
        (edge_ml.SchemeDecoder(OE1_STREAM), oe1_frame, 1e-3),
        (dot.DotDecoder(), dot_frame, 1e-6),
    ],
    ids=["Movesense", "edge-ml", "DOT"],
)
def test_stamps_run_on_past_32_bits(
    decoder: Decoder, frame: Callable[[int], bytes], unit_s: float
) -> None:
    ticks = [2**32 - 40, 2**32 - 1, 38, 77, 20, 2**31, 2**32 - 1, 5]
    run_on = [2**32 - 40, 2**32 - 1, 2**32 + 38, 2**32 + 77, 2**32 + 20]  # 20: out of order
    run_on += [2**32 + 2**31, 2**33 - 1, 2**33 + 5]
    got = [decoder.feed(frame(t))[0].device_s for t in ticks]
    first = [s[0] for s in got if s is not None]
    assert first == pytest.approx([t * unit_s for t in run_on], rel=1e-12)


def test_muse_counters_run_on_and_count_what_was_lost() -> None:
    decoder = muse.MuseDecoder("acc")
    counters = [65534, 65535, 0, 3, 2, 4]
    frames = [struct.pack(">H9h", c, *range(9)) for c in counters]
    index = [decoder.feed(f)[0].index for f in frames]
    assert index == [3 * i for i in (65534, 65535, 65536, 65539, 65538, 65540)]


# Recognition


def advert(name: str = "", *uuids: str) -> Advert:
    return Advert("AA:BB", name, -60, frozenset(uuids))


@pytest.mark.parametrize(
    ("heard", "device"),
    [
        (advert("Polar Sense 9B1C2A28"), polar.VERITY_SENSE),
        (advert("Polar H10 12345678"), polar.H10),
        (advert("Polar OH1 12345678"), polar.OH1),
        (advert("Movesense 174630000192"), movesense.DEVICE),
        (advert("", movesense.SERVICE_UUID), movesense.DEVICE),
        (advert("WT901BLE68"), witmotion.DEVICE),
        (advert("x", witmotion.SERVICE_UUID), witmotion.DEVICE),
        (advert("Thingy"), thingy.DEVICE),
        (advert("OpenEarable-4F32", edge_ml.SERVICE_UUID), openearable.DEVICE),
        (advert("NICLA-1A2B"), edge_ml.DEVICE),
        (advert("my board", edge_ml.SERVICE_UUID), edge_ml.DEVICE),
        (advert("Xsens DOT"), dot.DEVICE),
        (advert("MetaWear"), metamotion.DEVICE),
        (advert("Muse-2F3C"), muse.DEVICE),
        (advert("Polar Vantage M"), None),
        (advert(), None),
        (advert("x", "0000ffe5-0000-1000-8000-00805f9b34fb"), None),  # the SIG's base
    ],
)
def test_adverts_are_recognised(heard: Advert, device: BleDevice | None) -> None:
    assert recognise(heard) is device


def test_every_device_says_what_it_is_and_what_it_was_checked_against() -> None:
    assert len({device.name for device in DEVICES}) == len(DEVICES) == 12
    assert all(device.verified for device in DEVICES)
    assert {d.name for d in DEVICES if not d.has_gyro} == {"Polar H10", "Polar OH1"}
