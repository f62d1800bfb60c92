"""Decoders of serial lines, and telling the formats apart."""

from __future__ import annotations

import math
import pickle
import random
import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_framing import cut

from firmware_bridge import native
from firmware_bridge.errors import InputError
from firmware_bridge.link import Packet
from firmware_bridge.samples import STANDARD_GRAVITY_MPS2
from firmware_bridge.serial_formats import (
    CsvDecoder,
    NativeSerialDecoder,
    SerialFormat,
    TellingDecoder,
    WitmotionDecoder,
    Ximu3Decoder,
    detect,
)
from tests.firmware_bridge.fuzz import EXAMPLES

G = STANDARD_GRAVITY_MPS2
DEG = math.pi / 180

WIT_PAIR = bytes.fromhex("5551000000000008c4097b5552004000c000000000a7")
XIMU_MESSAGE = bytes.fromhex("c9e803000000000000" + "00" * 20 + "0000803f0a")

ESP32_BOOT = (
    b"ets Jun  8 2016 00:22:57\r\n\r\nrst:0x1 (POWERON_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\n"
    b"configsip: 0, SPIWP:0xee\r\nclk_drv:0x00,q_drv:0x00,d_drv:0x00\r\n"
    b"load:0x3fff0030,len:1184\r\nentry 0x400805cc\r\nMPU6050 found\r\nstarting\r\n"
)
ESP8266_BOOT = random.Random(1).randbytes(300) + b"\r\n"
"""Its boot loader speaks at 74880 baud."""


def motion(n: int) -> np.ndarray:
    """(n, 6) acc in g and gyro in deg/s of a slow walk."""
    rng = np.random.default_rng(5)
    t = np.arange(n) / 100
    acc = np.stack([0.1 * np.sin(11 * t), 0.05 * np.cos(11 * t), 1 + 0.3 * np.sin(22 * t)], axis=1)
    gyro = np.stack([30 * np.sin(11 * t), 10 * np.cos(11 * t), 5 * np.sin(22 * t)], axis=1)
    return np.hstack([acc, gyro]) + rng.normal(0, 0.01, (n, 6))


def csv_lines(values: np.ndarray, between: str = ",", end: str = "\r\n") -> bytes:
    return "".join(between.join(f"{v:.3f}" for v in row) + end for row in values).encode()


def wit_frame(kind: int, *values: int) -> bytes:
    body = struct.pack("<BB4h", 0x55, kind, *values)
    return body + bytes([sum(body) & 0xFF])


def wit_stream(values: np.ndarray, gyro: bool = True) -> bytes:
    out = b""
    for row in values:
        acc = np.round(row[:3] / 16 * 32768).astype(int).tolist()
        out += wit_frame(0x51, *acc, 2500)
        if gyro:
            out += wit_frame(0x52, *np.round(row[3:] / 2000 * 32768).astype(int).tolist(), 0)
        out += wit_frame(0x53, 1, 2, 3, 4)
    return out


def ximu_binary(time_us: int, row: np.ndarray) -> bytes:
    plain = struct.pack("<Q6f", time_us, *row[3:], *row[:3])
    return b"\xc9" + plain.replace(b"\xdb", b"\xdb\xdd").replace(b"\n", b"\xdb\xdc") + b"\n"


def ximu_ascii(time_us: int, row: np.ndarray) -> bytes:
    return f"I,{time_us},{','.join(f'{v:.4f}' for v in [*row[3:], *row[:3]])}\r\n".encode()


def ximu_stream(values: np.ndarray, message: Callable[[int, np.ndarray], bytes]) -> bytes:
    out = b'{"ping":{"interface":"USB","name":"x-IMU3"}}\r\n'
    for k, row in enumerate(values):
        out += message(1_000_000 + 10_000 * k, row) + b"T,%d,25.0\r\n" % k
    return out


def native_stream(values: np.ndarray) -> bytes:
    acc, gyro = 4 * G / 32768, 2000 * DEG / 32768
    raw = np.round(values * np.array([G] * 3 + [DEG] * 3) / ([acc] * 3 + [gyro] * 3))
    messages = []
    for k in range(0, len(raw), 4):
        if k % 100 == 0:
            said = native.Description("bench", 100, acc, gyro, restarted=k == 0)
            messages.append(native.encode_description(said))
        messages.append(native.encode_samples(k, 10_000 * k, raw[k : k + 4].astype(np.int16)))
    return native.encode_stream(messages)


WALK = motion(200)
SI = WALK * np.array([G] * 3 + [DEG] * 3)
OPENLOG = (
    "rtcDate,rtcTime,micros,aX,aY,aZ,gX,gY,gZ,mX,mY,mZ,imu_degC,output_Hz,\r\n"
    + "".join(
        f"01/02/2024,10:11:{k / 100:05.2f},{7_000_000 + 10_000 * k},"
        + ",".join(f"{v:.2f}" for v in [*row[:3] * 1000, *row[3:], 1.0, 2.0, 3.0, 27.5, 99.8])
        + ",\r\n"
        for k, row in enumerate(WALK)
    )
).encode()
CAPTURE = b"aX,aY,aZ,gX,gY,gZ\n" + b"\n".join(
    csv_lines(WALK[k : k + 50], end="\n") for k in range(0, 200, 50)
)

STREAMS = {
    "forwarder": csv_lines(WALK),
    "forwarder in m/s^2": csv_lines(WALK * ([G] * 3 + [1] * 3), between="\t", end="\n"),
    "acc only": csv_lines(WALK[:, :3] * 1000),
    "with a magnetometer": csv_lines(np.hstack([WALK, WALK[:, :3]])),
    "capture": CAPTURE,
    "openlog": OPENLOG,
    "witmotion": wit_stream(WALK),
    "witmotion, acc only": wit_stream(WALK, gyro=False),
    "ximu binary": ximu_stream(WALK, ximu_binary),
    "ximu ascii": ximu_stream(WALK, ximu_ascii),
    "native": native_stream(WALK),
}


def everything(decoder: TellingDecoder, chunks: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """All values, and the device times or nothing."""
    packets = [p for chunk in chunks for p in decoder.feed(chunk)]
    times = [p.device_s for p in packets if p.device_s is not None]
    assert len({p.kind for p in packets}) <= 1 and len(times) in (0, len(packets))
    values = [p.values for p in packets]
    return np.concatenate(values or [np.empty((0, 6))]), np.concatenate(times or [np.empty(0)])


def si(decoder: TellingDecoder, stream: bytes) -> np.ndarray:
    return everything(decoder, [stream])[0]


def test_witmotion_known_answers() -> None:
    """links.md, vectors 9 and 10."""
    acc = np.array([0, 0, 2048]) / 32768 * 16 * G
    gyro = np.array([16384, -16384, 0]) / 32768 * 2000 * DEG
    for junk in (b"", bytes.fromhex("55516a756e6b")):
        decoder = WitmotionDecoder()
        (packet,) = decoder.feed(junk + WIT_PAIR)
        assert packet.kind == "imu" and packet.index is None and packet.device_s is None
        assert np.allclose(packet.values, [[*acc, *gyro]], rtol=1e-12)
        assert decoder.counts == ({"bytes before the first frame": 6} if junk else {})
    assert packet.values[0, 2] == pytest.approx(9.80665)
    assert packet.values[0, 3] == pytest.approx(math.radians(1000))


def test_witmotion_pairs_and_counts() -> None:
    acc, gyro = WIT_PAIR[:11], WIT_PAIR[11:]
    decoder = WitmotionDecoder()
    assert decoder.feed(gyro) == [] and decoder.counts == {"gyro without acc": 1}
    assert decoder.feed(acc) == []
    (packet,) = decoder.feed(acc + wit_frame(0x53, 1, 2, 3, 4) + gyro)
    assert packet.values.shape == (1, 6) and decoder.counts["acc without gyro"] == 1
    broken = bytes([*gyro[:5], gyro[5] ^ 1, *gyro[6:]])
    (packet,) = decoder.feed(acc + broken + acc + gyro)
    assert len(packet.values) == 1 and decoder.counts["checksum"] >= 1
    alone = WitmotionDecoder(has_gyro=False)
    (packet,) = alone.feed(acc + acc)
    assert packet.kind == "acc" and packet.values.shape == (2, 3) and not alone.counts


def test_a_frame_that_begins_within_a_damaged_one_is_found() -> None:
    decoder = WitmotionDecoder()
    decoder.feed(WIT_PAIR)
    (packet,) = decoder.feed(WIT_PAIR[:4] + WIT_PAIR)  # seven bytes were lost
    assert len(packet.values) == 1


def test_ximu3_known_answer() -> None:
    """links.md, vector 19."""
    (packet,) = Ximu3Decoder().feed(XIMU_MESSAGE)
    assert packet.device_s is not None and packet.device_s.tolist() == [0.001]
    assert packet.values[0] == pytest.approx([0, 0, G, 0, 0, 0])


def test_ximu3_stuffing_and_ascii() -> None:
    row = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    for time_us in (0x0A0A0A, 0xDBDBDB, 0x0ADB0ADB, 0xDCDBDDDB):
        message = ximu_binary(time_us, row)
        assert message.count(b"\n") == 1
        (packet,) = Ximu3Decoder().feed(message)
        assert packet.device_s is not None and packet.device_s[0] == time_us * 1e-6
        assert np.allclose(packet.values, [[G, 2 * G, 3 * G, 4 * DEG, 5 * DEG, 6 * DEG]])
    (packet,) = Ximu3Decoder().feed(b"I,1000000,180,0,-90,0.5,0,1.0\r\n")
    assert np.allclose(packet.values, [[0.5 * G, 0, G, math.pi, 0, -math.pi / 2]])


def test_ximu3_counts() -> None:
    decoder = Ximu3Decoder()
    assert decoder.feed(b"0,1,2\r\n\xc9half\nQ,1,1,0,0,0\r\n") == []
    assert decoder.counts == {"before the first message": 1}
    decoder.feed(XIMU_MESSAGE)
    nan = ximu_binary(5, np.array([0, 0, math.nan, 0, 0, 0]))
    assert decoder.feed(nan + b"I,1,2\n" + b"\xc9short\xdb\n" + b"x" * 5000 + b"\n") == []
    assert decoder.feed(b"I,1,nan,0,0,0,0,0\nI,-1,0,0,0,0,0,0\nI,1,1e99,0,0,0,0,0\n") == []
    assert decoder.counts == {
        "before the first message": 1,
        "number out of range": 3,
        "fields": 2,
        "length": 1,
        "message too long": 1,
    }


def test_csv_from_the_middle_of_a_line() -> None:
    decoder = CsvDecoder()
    values = si(decoder, b"12,0.5,1.0\r\n" + csv_lines(WALK))
    assert np.allclose(values, SI, atol=0.0006 * G)
    assert decoder.counts == {"half a line at the start": 1}
    assert decoder.decided == (
        "6 columns without names: acc, then gyro; acc in g (its median over 20 lines is "
        f"{np.median(np.linalg.norm(WALK[:20, :3].round(3), axis=1)):.4g}), gyro in deg/s "
        "(assumed, as nothing states it; else say so with --gyro-unit rad/s)"
    )


def test_csv_units_as_asked_need_no_lines_to_judge_by() -> None:
    decoder = CsvDecoder("m/s^2", "rad/s")
    (packet,) = decoder.feed(b"\n1,2,3,4,5,6\n")
    assert packet.values.tolist() == [[1, 2, 3, 4, 5, 6]]
    assert decoder.decided.endswith("acc in m/s^2 (as asked), gyro in rad/s (as asked)")
    with pytest.raises(InputError, match=r"--acc-unit 'G' is not known; one of: m/s\^2, g, mg"):
        CsvDecoder("G")
    with pytest.raises(InputError, match="--gyro-unit"):
        CsvDecoder(None, "dps")


def test_csv_gyro_that_is_too_fast_for_rad_per_s() -> None:
    fast = CsvDecoder()
    si(fast, b"\n" + csv_lines(WALK * ([1] * 3 + [20] * 3)))
    assert "too much for rad/s" in fast.decided


@pytest.mark.parametrize(
    ("header", "acc", "gyro"),
    [
        ("ax_mps2,ay_mps2,az_mps2,gx_rads,gy_rads,gz_rads", 1.0, 1.0),
        ("accX (mg),accY (mg),accZ (mg),gyrX (dps),gyrY (dps),gyrZ (dps)", G / 1000, DEG),
        ("Acc_X [g];Acc_Y [g];Acc_Z [g];Gyro_X [rad/s];Gyro_Y [rad/s];Gyro_Z [rad/s]", G, 1.0),
        ("acc_x_g\tacc_y_g\tacc_z_g\tgyro_x_mdps\tgyro_y_mdps\tgyro_z_mdps", G, DEG / 1000),
        (
            "accelerationX (m/s²),accelerationY (m/s²),accelerationZ (m/s²),gx_dps,gy_dps,gz_dps",
            1,
            DEG,
        ),
    ],
)
def test_csv_units_by_the_header(header: str, acc: float, gyro: float) -> None:
    decoder = CsvDecoder()
    between = next(c for c in "\t;," if c in header)
    (packet,) = decoder.feed((header + "\n" + between.join("123456") + "\n").encode())
    assert packet.values[0] == pytest.approx([acc, 2 * acc, 3 * acc, 4 * gyro, 5 * gyro, 6 * gyro])
    assert decoder.decided.count("by the header") == 3


def test_csv_columns_are_found_by_name_in_any_order() -> None:
    stream = b"temp,gz_dps,gy_dps,gx_dps,t_ms,az_g,ay_g,ax_g\n25,3,2,1,1500,6,5,4\n"
    (packet,) = CsvDecoder().feed(stream)
    assert packet.values[0] == pytest.approx([4 * G, 5 * G, 6 * G, DEG, 2 * DEG, 3 * DEG])
    assert packet.device_s is not None and packet.device_s.tolist() == [1.5]


def test_csv_device_times_unwrap_and_a_damaged_one_harms_no_other() -> None:
    decoder = CsvDecoder()
    rows = [2**32 - 20_000, 2**32 - 10_000, 0, 10_000, 1_000, 20_000]
    lines = "micros,ax_g,ay_g,az_g\n" + "".join(f"{t},0,0,1\n" for t in rows)
    (packet,) = decoder.feed(lines.encode())
    expected = [2**32 + t for t in (-20_000, -10_000, 0, 10_000, 1_000, 20_000)]
    assert packet.kind == "acc" and packet.device_s is not None
    assert np.allclose(packet.device_s, np.array(expected) * 1e-6)


def test_csv_arduino_header_in_g_and_openlog_header_in_mg() -> None:
    capture = CsvDecoder()
    assert np.allclose(si(capture, CAPTURE), SI, atol=0.0006 * G)
    assert "acc in g (its median" in capture.decided and not capture.counts
    assert "gyro in deg/s (as Arduino's IMU sketches write it" in capture.decided
    openlog = CsvDecoder()
    values, times = everything(openlog, [OPENLOG])
    assert np.allclose(values, SI, atol=0.006 * DEG + 1e-5 * G) and not openlog.counts
    assert np.allclose(times, 7 + np.arange(200) / 100)
    assert openlog.decided.count("as OpenLog Artemis writes it") == 2


def test_csv_what_is_wrong_is_counted() -> None:
    decoder = CsvDecoder("g", "deg/s")
    good = b"0,0,1,0,0,0\n"
    stream = (
        good + good + b"hello\n" + b"1,2\n" + b"0,0,x,0,0,0\n" + b"0,0,1e99,0,0,0\n" + b"\n\r\n"
    )
    stream += (
        b"0,0,nan,0,0,0\n" + b"0,0,1_0,0,0,0\n" + b"y" * 2000 + b"\n" + b"0,0,\xd9\xa1,0,0,0\n"
    )
    assert len(si(decoder, ESP32_BOOT + stream + good)) == 3
    assert decoder.counts == {
        "half a line at the start": 1,
        "before the first line of numbers": 7,
        "number of fields": 2,
        "not numbers": 4,
        "number out of range": 1,
        "line too long": 1,
    }


def test_csv_the_header_again_after_a_restart() -> None:
    decoder = CsvDecoder()
    before, after = decoder.feed(b"ax_g,ay_g,az_g\n0,0,1\nax_g,ay_g,az_g\n0,0,2\n")
    assert (len(before.values), len(after.values)) == (1, 1)
    assert decoder.counts == {"header again: restart of the device": 1}
    (wider,) = decoder.feed(b"ax_g,ay_g,az_g,gx_dps,gy_dps,gz_dps\n0,0,1,0,0,1\n")
    assert wider.kind == "imu"


def test_csv_raw_counts_are_refused_with_the_reason_until_they_make_sense() -> None:
    decoder = CsvDecoder()
    assert decoder.feed(b"\n" + b"100,200,16384,5,6,7\n" * 40) == []
    assert decoder.problem is not None and "16386" not in decoder.decided
    assert "median over 20 lines is 1.639e+04, which is near 1 g in none of g, m/s^2, mg" in (
        decoder.problem
    )
    assert decoder.counts == {"unit not known": 40}
    packets = decoder.feed(b"0,0,1,5,6,7\n" * 35)
    assert decoder.problem is None and [len(p.values) for p in packets] == [35]


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("boot", [b"", ESP32_BOOT, ESP8266_BOOT, b"\0\xff\xfe"])
@pytest.mark.parametrize("skipped", [0, 7])
def test_each_format_is_told_from_its_stream(name: str, boot: bytes, skipped: int) -> None:
    headed = name in ("capture", "openlog")  # their header is there only from the start
    stream = boot + (STREAMS[name] if headed else STREAMS[name][skipped:])
    found = detect(stream)
    assert found is not None
    names = {"witmotion": "WitMotion", "ximu": "x-IMU3", "native": "aura-edge"}
    expected = next((names[start] for start in names if name.startswith(start)), "CSV lines")
    assert found.name == expected and found.reason
    decoder = found.decoder()
    values = si(decoder, stream)
    assert decoder.problem is None and decoder.decided
    if name == "native":
        assert decoder.nominal_hz == 100
    columns = 3 if "acc only" in name else 6
    assert 195 <= len(values) <= 200
    assert np.allclose(values, SI[200 - len(values) :, :columns], atol=0.006)


def garbled(data: bytes, sent: int, received: int) -> bytes:
    """What a UART at one baud rate makes of 8N1 sent at another, idle in between nothing."""
    bits = [bit for b in data for bit in (0, *(b >> k & 1 for k in range(8)), 1)]
    step, at, out = sent / received, 0.0, bytearray()
    for k, bit in enumerate(bits):
        while not bit and at < k + 1:  # low where a start bit is waited for
            start = max(at, float(k))
            places = [int(start + step * (n + 1.5)) for n in range(8)]
            out.append(sum(1 << n for n, p in enumerate(places) if p >= len(bits) or bits[p]))
            at = start + step * 9.5
    return bytes(out)


def test_a_wrong_baud_rate_is_no_format() -> None:
    assert garbled(b"abc\xff\0", 9600, 9600) == b"abc\xff\0"
    rates = (115_200, 921_600, 57_600, 38_400, 9_600)
    for stream in STREAMS.values():
        for received in rates[1:]:
            assert detect(garbled(stream[:3000], 115_200, received)) is None


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"I (305) wifi: connected\r\n" * 100,
        b"25.1\r\n" * 100,  # one number a line
        b"1,2,3,4,5\r\n" * 100,
        b"\0" * 1000,
        b"\x55" * 1000,
        b"I,1,2,3\r\n" * 100,
        b"time,temp\n1,2\n" * 100,
        native_stream(WALK)[:60],  # one frame
        b"".join(
            native.encode_stream([b"\x01 a device with a layout of its own"]) for _ in range(9)
        ),
    ],
)
def test_other_streams_are_no_format(stream: bytes) -> None:
    assert detect(stream) is None


def test_units_for_a_format_that_states_its_own() -> None:
    for name in ("witmotion", "native", "ximu binary"):
        with pytest.raises(InputError, match="whose units are fixed; leave them out"):
            detect(STREAMS[name], acc_unit="g")
    found = detect(STREAMS["forwarder"], "g", "rad/s")
    assert found is not None and "as asked" in _decided(found)


def _decided(found: SerialFormat) -> str:
    decoder = found.decoder()
    decoder.feed(b"\n1,2,3,4,5,6\n")
    return decoder.decided


def test_a_version_to_come_is_a_problem() -> None:
    frames = [b"\x21\x01" + bytes(18)] * 5
    found = detect(native.encode_stream(frames))
    assert found is not None and found.name == "aura-edge"
    decoder = found.decoder()
    decoder.feed(native.encode_stream(frames))
    assert decoder.problem is not None and "version 2 of the format" in decoder.problem


DECODERS: dict[str, Callable[[], TellingDecoder]] = {
    "csv": CsvDecoder,
    "csv, units stated": lambda: CsvDecoder("g", "deg/s"),
    "witmotion": WitmotionDecoder,
    "witmotion, acc only": lambda: WitmotionDecoder(has_gyro=False),
    "ximu3": Ximu3Decoder,
    "native": NativeSerialDecoder,
}

PIECES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            *(WIT_PAIR, WIT_PAIR[:11], WIT_PAIR[11:], b"\x55\x51"),
            *(XIMU_MESSAGE, b"I,1000,1,2,3,0,0,1\r\n", b"\xdb", b"\n"),
            *(
                b"0,0,1,4,5,6\n",
                b"0,0,1\n",
                b"0\t0\t9.8\n",
                b"0,0,1000\r\n" * 21,
                b"0,0,7e4\n" * 20,
            ),
            *(b"aX,aY,aZ,gX,gY,gZ\n", b"micros,ax_g,ay_g,az_g\n", b"4294967290,0,0,1\n5,0,0,1\n"),
            *(STREAMS["native"][:30], STREAMS["native"][30:120], b"\0"),
        ]
    ),
    st.text("0123456789.,-+eE \t;\r\naxyzXYZg_", max_size=40).map(str.encode),
)


@pytest.mark.parametrize("name", DECODERS)
@settings(deadline=None, max_examples=EXAMPLES)
@given(st.lists(PIECES, max_size=25), st.lists(st.integers(0), max_size=20))
@example([b"0,0,1,4,5,6\n" * 60], [100, 101, 102, 500])
def test_any_bytes_in_any_chunks(name: str, pieces: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(pieces)
    whole, chunked = DECODERS[name](), DECODERS[name]()
    once = whole.feed(stream)
    bits = [p for chunk in cut(stream, cuts) for p in chunked.feed(chunk)]
    assert whole.counts == chunked.counts and whole.decided == chunked.decided
    assert joined(once) == joined(bits)
    for packet in once:
        n = len(packet.values)
        assert n >= 1 and packet.values.shape[1] == (6 if packet.kind == "imu" else 3)
        assert np.isfinite(packet.values).all() and packet.values.dtype == np.float64
        if packet.device_s is not None:
            assert packet.device_s.shape == (n,) and np.isfinite(packet.device_s).all()
    assert len(chunked.counts) < 20


def joined(packets: list[Packet]) -> list[tuple[str, bytes, bytes]]:
    """Each sample as kind, values and time."""
    rows = []
    for p in packets:
        times = [b""] * len(p.values) if p.device_s is None else [t.tobytes() for t in p.device_s]
        rows += [(p.kind, v.tobytes(), t) for v, t in zip(p.values, times, strict=True)]
    return rows


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.lists(PIECES, max_size=25))
def test_detection_never_raises_and_its_decoder_agrees(pieces: list[bytes]) -> None:
    stream = b"".join(pieces)
    found = detect(stream)
    if found is not None:
        found.decoder().feed(stream)
        assert found.name in ("aura-edge", "WitMotion", "x-IMU3", "CSV lines")


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.binary(max_size=4000))
def test_noise_is_no_format(noise: bytes) -> None:
    assert detect(noise) is None


def test_a_line_that_never_ends_takes_no_memory() -> None:
    for make in DECODERS.values():
        for byte in (b"\xff", b"1", b"\x55"):
            decoder = make()
            for _ in range(50):
                decoder.feed(byte * 10_000)
            assert len(pickle.dumps(decoder)) < 8_000
