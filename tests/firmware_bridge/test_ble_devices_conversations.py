"""What is said to BLE devices and how their answers are taken, against scripted devices."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from firmware_bridge.ble_devices import (
    conversation,
    dot,
    edge_ml,
    metamotion,
    movesense,
    muse,
    openearable,
    polar,
    thingy,
    witmotion,
)
from firmware_bridge.errors import AuraError
from firmware_bridge.link import Deliver, GattClient, Packet, Session
from tests.firmware_bridge.test_ble_devices import NICLA_SCHEME, OE1_SCHEME, imu6, wit_frame


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "ANSWER_S", 0.05)
    monkeypatch.setattr(witmotion, "_BETWEEN_COMMANDS_S", 0.0)


@dataclass
class FakeGatt:
    """A device: what its characteristics read, and what it does when it is written to."""

    reads: dict[str, bytes] = field(default_factory=dict)
    answer: Callable[[FakeGatt, str, bytes], None] = lambda *_: None
    hang_at: int | None = None
    """Number of the operation that never returns."""

    mtu_size: int = 247
    log: list[str] = field(default_factory=list)
    """One line an operation: "write 0001 0263", with the 16 bits of a UUID that differ."""

    listeners: dict[str, Callable[[Any, bytearray], None]] = field(default_factory=dict)

    async def _operation(self, line: str) -> None:
        self.log.append(line)
        if self.hang_at == len(self.log) - 1:
            await asyncio.Event().wait()
        await asyncio.sleep(0)

    async def read_gatt_char(self, char_specifier: str) -> bytearray:
        await self._operation(f"read {char_specifier[4:8]}")
        return bytearray(self.reads[char_specifier])

    async def write_gatt_char(
        self, char_specifier: str, data: bytes, response: bool | None = None
    ) -> None:
        await self._operation(f"write {char_specifier[4:8]} {data.hex()}")
        self.answer(self, char_specifier, data)

    async def start_notify(
        self, char_specifier: str, callback: Callable[[Any, bytearray], None]
    ) -> None:
        await self._operation(f"listen {char_specifier[4:8]}")
        self.listeners[char_specifier] = callback

    async def stop_notify(self, char_specifier: str) -> None:
        await self._operation(f"unlisten {char_specifier[4:8]}")
        del self.listeners[char_specifier]

    def notify(self, uuid: str, data: bytes) -> None:
        if uuid in self.listeners:
            self.listeners[uuid](None, bytearray(data))


def converse(
    device: FakeGatt,
    opener: Callable[[GattClient, Deliver], Any],
    *notifications: tuple[str, bytes],
) -> tuple[Session, list[Packet], list[str], list[str]]:
    """Open, receive, stop: the session, what was delivered, what was said before and at the end."""

    async def run() -> tuple[Session, list[Packet], list[str], list[str]]:
        packets: list[Packet] = []
        session = await opener(device, packets.extend)
        opened = len(device.log)
        for uuid, data in notifications:
            device.notify(uuid, data)
        await session.stop()
        return session, packets, device.log[:opened], device.log[opened:]

    return asyncio.run(run())


def opening_fails(device: FakeGatt, opener: Callable[[GattClient, Deliver], Any]) -> str:
    """The message of the error."""

    async def run() -> None:
        await opener(device, lambda _: None)

    with pytest.raises(AuraError) as caught:
        asyncio.run(run())
    return str(caught.value)


# Polar


POLAR_SETTINGS = {2: "000134000101100002010800040103", 5: "00013400010110000201d007040103"}


@dataclass
class PolarSensor:
    """The control point of a Verity Sense."""

    statuses: dict[str, list[int]] = field(default_factory=dict)
    """Command in hex, its first two bytes -> statuses of its answers, in turn; 0 from then on."""

    silent: str = ""
    """A command that is not answered."""

    parts: int = 1
    """Notifications in which settings are sent."""

    sdk_mode: bool = False

    def __call__(self, gatt: FakeGatt, uuid: str, data: bytes) -> None:
        command = data[:2].hex()
        if uuid != polar.CONTROL_UUID or command == self.silent:
            return
        gatt.notify(uuid, b"\xf0\x09\x09\x00\x00")  # of a question that nobody asked
        left = self.statuses.get(command, [])
        status = left.pop(0) if left else 0
        head = b"\xf0" + data[:2] + bytes([status])
        if data[1] == polar.SDK_MODE and status in (0, polar.ALREADY_IN_STATE):
            self.sdk_mode = data[0] == polar.START
        if status or data[0] == polar.STOP or data[1] == polar.SDK_MODE:
            gatt.notify(uuid, head + b"\0")
        elif data[0] == polar.GET_SETTINGS:
            content = bytes.fromhex((SDK_SETTINGS if self.sdk_mode else POLAR_SETTINGS)[data[1]])
            size = -(-len(content) // self.parts)
            for start in range(0, len(content), size):
                more = start + size < len(content)
                gatt.notify(uuid, head + bytes([more]) + content[start : start + size])
        else:
            factor = 2.44e-4 if data[1] == 2 else 0.07
            gatt.notify(uuid, head + b"\0\x05\x01" + struct.pack("<f", factor))


def verity(sensor: PolarSensor, features: str = "0f240200") -> FakeGatt:
    return FakeGatt({polar.CONTROL_UUID: bytes.fromhex(features)}, sensor)


ACC_FRAME = struct.pack("<BQB3h", 2, 10**9, 0x80, 0, 0, 4096)
GYRO_FRAME = struct.pack("<BQB3h", 5, 10**9, 0x80, 100, 0, 0)

POLAR_OPENING = [
    "listen 5c81",
    "listen 5c82",
    "read 5c81",
    "write 5c81 0309",
    "write 5c81 0102",
    "write 5c81 0202000134000101100002010800040103",
    "write 5c81 0105",
    "write 5c81 020500013400010110000201d007040103",
]
POLAR_CLOSING = ["write 5c81 0302", "write 5c81 0305"]


def test_polar_verity_sense() -> None:
    frames = [(polar.DATA_UUID, f) for f in (ACC_FRAME, GYRO_FRAME, b"", b"\x06" + ACC_FRAME[1:])]
    sensor = PolarSensor()
    session, packets, opened, closed = converse(verity(sensor), polar.VERITY_SENSE.open, *frames)
    assert opened == POLAR_OPENING and closed == POLAR_CLOSING
    assert session.details == "acc 52 Hz +-8 g, gyro 52 Hz +-2000 deg/s"
    assert session.nominal_hz == 52 and list(session.decoders) == ["acc", "gyro"]
    acc, gyro = packets  # and nothing of the magnetometer's frame
    assert acc.values[0, 2] == pytest.approx(4096 * 2.44e-4 * 9.80665)
    assert gyro.values[0, 0] == pytest.approx(0.1221730476)  # 7 deg/s
    assert not session.decoders["acc"].counts and not session.decoders["gyro"].counts


def test_polar_acc_only() -> None:
    device = verity(PolarSensor(), "0f0500")
    session, _, opened, closed = converse(device, polar.H10.open)
    assert opened == POLAR_OPENING[:3] + POLAR_OPENING[4:6] and closed == POLAR_CLOSING[:1]
    assert list(session.decoders) == ["acc"]


def test_polar_answers_in_parts() -> None:
    for parts in range(2, 16):
        session, _, opened, _ = converse(verity(PolarSensor(parts=parts)), polar.opener())
        assert opened == POLAR_OPENING and session.nominal_hz == 52


SDK_ON, SDK_OFF = "write 5c81 0209", "write 5c81 0309"
SDK_SETTINGS = {
    2: "00051a0034006800d000a0010101100002040200040008001000040103",
    5: "00051a0034006800d000a001010110000204fa00f401e803d007040103",
}
"""26 to 416 Hz, 16 bits, 2 to 16 g or 250 to 2000 deg/s, 3 channels."""


def test_polar_sdk_mode_is_on_for_a_rate_that_needs_it() -> None:
    sensor = PolarSensor({"0209": [12, 0]})  # not while streams run that somebody left
    session, _, opened, closed = converse(verity(sensor), polar.opener(rate_hz=104))
    assert opened[:5] == [*POLAR_OPENING[:5]]
    assert opened[5:9] == [SDK_ON, *POLAR_CLOSING, SDK_ON]
    assert opened[9:] == [
        "write 5c81 0102",
        "write 5c81 0202000168000101100002011000040103",
        "write 5c81 0105",
        "write 5c81 020500016800010110000201d007040103",
    ]
    assert closed == [*POLAR_CLOSING, SDK_OFF]
    assert session.details == "acc 104 Hz +-16 g, gyro 104 Hz +-2000 deg/s, SDK mode"
    assert session.nominal_hz == 104
    converse(verity(PolarSensor({"0209": [6]})), polar.opener(rate_hz=208))


def test_polar_sdk_mode_is_off_otherwise() -> None:
    session, _, opened, closed = converse(verity(PolarSensor()), polar.opener(rate_hz=52))
    assert SDK_ON not in opened and closed == POLAR_CLOSING and "SDK" not in session.details
    converse(verity(PolarSensor({"0309": [6]})), polar.opener())
    converse(verity(PolarSensor({"0309": [3]})), polar.opener())  # to switch it off is no must


def test_polar_rates_that_there_are_not() -> None:
    no_sdk_mode = verity(PolarSensor(), "0f24")
    assert "not measure at 104 Hz; it offers 52: say one" in opening_fails(
        no_sdk_mode, polar.opener(rate_hz=104)
    )
    device = verity(PolarSensor())
    assert "not measure at 100 Hz; it offers 26, 52, 104, 208: say one" in opening_fails(
        device, polar.opener(rate_hz=100)
    )
    assert device.log[-1] == SDK_OFF


def test_polar_streams_that_somebody_left_are_started_anew() -> None:
    _, _, opened, _ = converse(verity(PolarSensor({"0202": [6, 0]})), polar.opener())
    start = POLAR_OPENING[5]
    assert opened == [*POLAR_OPENING[:5], start, POLAR_CLOSING[0], start, *POLAR_OPENING[6:]]


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        ("0202", 13, "refused to start acc: the sensor is in its charger; take it out, and try"),
        ("0205", 12, "refused to start gyro: its state does not allow that"),
        ("0202", 99, "refused to start acc: status 99"),
        ("0105", 3, "refused to tell its settings for gyro: it does not support that"),
        ("0209", 3, "refused to switch its SDK mode on: it does not support that"),
    ],
)
def test_polar_refusals_in_words(command: str, status: int, message: str) -> None:
    device = verity(PolarSensor({command: [status] * 9}))
    assert message in opening_fails(
        device, polar.opener(rate_hz=104 if command == "0209" else None)
    )
    if command == "0205":  # what had been started is stopped
        assert device.log[-2:] == POLAR_CLOSING


def test_polar_without_what_is_needed() -> None:
    assert "no gyro stream" in opening_fails(verity(PolarSensor(), "0f04"), polar.opener())
    assert "no acc stream" in opening_fails(verity(PolarSensor(), "0f"), polar.opener())
    assert "no acc stream" in opening_fails(verity(PolarSensor(), ""), polar.opener())


@pytest.mark.parametrize("silent", ["0309", "0102", "0202", "0205"])
def test_polar_does_not_answer(silent: str) -> None:
    message = opening_fails(verity(PolarSensor(silent=silent)), polar.opener())
    assert message.startswith(f"the sensor did not answer the command {silent}")


def test_polar_answers_without_end_are_cut() -> None:
    def endless(gatt: FakeGatt, uuid: str, data: bytes) -> None:
        for _ in range(100):
            gatt.notify(uuid, b"\xf0" + data[:2] + b"\0\x01" + bytes(100))

    device = FakeGatt({polar.CONTROL_UUID: bytes.fromhex("0f2400")}, endless)
    assert "no sample rate" in opening_fails(device, polar.opener())


def test_polar_stops_by_itself() -> None:
    stopped = [(polar.CONTROL_UUID, bytes([1, 5])), (polar.CONTROL_UUID, bytes([1, 0, 2, 5]))]
    session, _, _, _ = converse(verity(PolarSensor()), polar.opener(), *stopped)
    assert session.decoders["acc"].counts == {"stopped by the device": 1}
    assert session.decoders["gyro"].counts == {"stopped by the device": 2}


# The others


def movesense_answers(result: str) -> Callable[[FakeGatt, str, bytes], None]:
    def answer(gatt: FakeGatt, _: str, data: bytes) -> None:
        if data[0] == movesense.SUBSCRIBE:
            gatt.notify(movesense.NOTIFY_UUID, bytes.fromhex(result))

    return answer


def metawear_answers(accelerometer: int) -> Callable[[FakeGatt, str, bytes], None]:
    def answer(gatt: FakeGatt, _: str, data: bytes) -> None:
        if data == b"\x03\x80":
            gatt.notify(metamotion.NOTIFY_UUID, b"\x13\x80\x00\x01")
            gatt.notify(metamotion.NOTIFY_UUID, bytes([3, 0x80, accelerometer, 1]))

    return answer


@dataclass(frozen=True)
class Script:
    """A device that does all it should."""

    open: Callable[[GattClient, Deliver], Any]
    opening: list[str]
    closing: list[str]
    notification: tuple[str, bytes]
    decoders: list[str]
    nominal_hz: float
    reads: dict[str, bytes] = field(default_factory=dict)
    answer: Callable[[FakeGatt, str, bytes], None] = lambda *_: None

    def device(self, hang_at: int | None = None) -> FakeGatt:
        return FakeGatt(dict(self.reads), self.answer, hang_at)


THINGY_CONFIG = thingy.motion_config(500, 600, 700, 10, 1)
DOT_CONTROL = bytes(32)

SCRIPTS = {
    "Polar": Script(
        polar.VERITY_SENSE.open,
        POLAR_OPENING,
        POLAR_CLOSING,
        (polar.DATA_UUID, GYRO_FRAME),
        ["acc", "gyro"],
        52,
        {polar.CONTROL_UUID: bytes.fromhex("0f240200")},
        PolarSensor(),
    ),
    "Movesense": Script(
        movesense.DEVICE.open,
        ["listen 0002", "write 0001 01632f4d6561732f494d55362f313034"],
        ["write 0001 0263", "unlisten 0002"],
        (movesense.NOTIFY_UUID, b"\x02\x63" + imu6(0, 8)[0]),
        ["imu"],
        104,
        answer=movesense_answers("0163c800"),
    ),
    "WitMotion": Script(
        witmotion.DEVICE.open,
        ["listen ffe4", "write ffe9 ffaa6988b5", "write ffe9 ffaa030900"],
        ["unlisten ffe4"],
        (witmotion.NOTIFY_UUID, wit_frame(1)),
        ["imu"],
        100,
    ),
    "Thingy": Script(
        thingy.DEVICE.open,
        ["read 0401", "listen 0406", "write 0401 f4015802bc02320001"],
        ["unlisten 0406", f"write 0401 {THINGY_CONFIG.hex()}"],
        (thingy.RAW_UUID, bytes(18)),
        ["imu"],
        50,
        {thingy.CONFIG_UUID: THINGY_CONFIG},
    ),
    "OpenEarable 2": Script(
        openearable.DEVICE.open,
        ["read 2512", "listen e3bc", "write e3be 000201"],
        ["write e3be 000200", "unlisten e3bc"],
        (openearable.DATA_UUID, struct.pack("<BBQ9f", 0, 36, 0, *range(9))),
        ["imu"],
        100,
        {openearable.GENERATION_UUID: b"2.0.1\0"},
    ),
    "OpenEarable 1": Script(
        openearable.DEVICE.open,
        ["read 2512", "read 5cb8", "listen e3bc", "write e3bd 000000484200000000"],
        ["write e3bd 000000000000000000", "unlisten e3bc"],
        (edge_ml.DATA_UUID, struct.pack("<BBI9f", 0, 36, 0, *range(9))),
        ["imu"],
        50,
        {openearable.GENERATION_UUID: b"1.4.0", edge_ml.SCHEME_UUID: OE1_SCHEME},
    ),
    "Nicla": Script(
        edge_ml.DEVICE.open,
        [
            "read 5cb8",
            "listen e3bc",
            "write e3bd 040000484200000000",
            "write e3bd 0d0000484200000000",
        ],
        ["write e3bd 040000000000000000", "write e3bd 0d0000000000000000", "unlisten e3bc"],
        (edge_ml.DATA_UUID, struct.pack("<BBI3f", 13, 12, 0, *range(3))),
        ["acc", "gyro"],
        50,
        {edge_ml.SCHEME_UUID: NICLA_SCHEME},
    ),
    "DOT": Script(
        dot.DEVICE.open,
        [
            "read 1002",
            f"write 1002 10{'00' * 23}3c00{'00' * 6}",
            "listen 2003",
            "write 2001 010114",
        ],
        ["write 2001 010014", "unlisten 2003"],
        (dot.MEDIUM_UUID, struct.pack("<I6f3h", 0, *range(6), 0, 0, 0)),
        ["imu"],
        60,
        {dot.DEVICE_CONTROL_UUID: DOT_CONTROL},
    ),
    "MetaMotion": Script(
        metamotion.DEVICE.open,
        ["listen 9006", "write 9001 0380"]
        + [f"write 9001 {c}" for c in ("03032808", "031c01", "03020100", "030101")]
        + [f"write 9001 {c}" for c in ("13032800", "130701", "13020100", "130101")],
        [f"write 9001 {c}" for c in ("030100", "03020001", "031c00")]
        + [f"write 9001 {c}" for c in ("130100", "13020001", "130700")]
        + ["unlisten 9006"],
        (metamotion.NOTIFY_UUID, b"\x13\x07" + bytes(18)),
        ["acc", "gyro"],
        100,
        answer=metawear_answers(1),
    ),
    "Muse": Script(
        muse.DEVICE.open,
        ["listen 000a", "listen 0009", "write 0001 047032310a", "write 0001 02640a"],
        ["write 0001 02680a", "unlisten 000a", "unlisten 0009"],
        ("273e0009-4c4d-454d-96be-f03bac821358", bytes(20)),
        ["acc", "gyro"],
        52,
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_conversation(name: str) -> None:
    script = SCRIPTS[name]
    uuid, data = script.notification
    session, packets, opened, closed = converse(
        script.device(), script.open, (uuid, data), (uuid, data[:1])
    )
    assert opened == script.opening and closed == script.closing
    assert list(session.decoders) == script.decoders and session.nominal_hz == script.nominal_hz
    assert session.details
    (packet,) = packets  # the second is too short for any
    assert packet.kind == script.decoders[-1]


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_operation_is_waited_for_without_end(name: str) -> None:
    script = SCRIPTS[name]
    for hang_at in range(len(script.opening)):
        message = opening_fails(script.device(hang_at), script.open)
        assert message.startswith("the sensor did not ") and "try again" in message
    for hang_at in range(len(script.closing)):
        with pytest.raises(AuraError, match="the sensor did not "):
            converse(script.device(len(script.opening) + hang_at), script.open)


def test_movesense_refusals_in_words() -> None:
    for result, message in (
        ("01639401", "status 404: its firmware has no such stream"),
        ("016301fb", "status 507: it has no memory left"),
        ("01630900", "status 2304: unknown"),
    ):
        device = FakeGatt(answer=movesense_answers(result))
        assert message in opening_fails(device, movesense.DEVICE.open)
    for result in ("016401f4", "0163c8", "03630000"):  # of another question, cut, no answer
        device = FakeGatt(answer=movesense_answers(result))
        assert "did not answer the subscription" in opening_fails(device, movesense.DEVICE.open)


def test_movesense_data_is_an_answer() -> None:
    device = FakeGatt(answer=movesense_answers("0263" + imu6(0, 16)[0].hex()))
    session, packets, opened, _ = converse(device, movesense.opener(208))
    assert opened[1].endswith(b"/208".hex()) and len(packets) == 1 and session.nominal_hz == 208


def test_a_metamotion_with_another_sensor_is_refused() -> None:
    for implementation, message in ((4, "a BMI270"), (0, "an MMA8452Q"), (255, "none")):
        device = FakeGatt(answer=metawear_answers(implementation))
        assert message in opening_fails(device, metamotion.DEVICE.open)
    device = FakeGatt(answer=lambda g, _, d: g.notify(metamotion.NOTIFY_UUID, d))  # says nothing
    assert "none" in opening_fails(device, metamotion.DEVICE.open)


def test_a_thingy_with_another_configuration_is_refused() -> None:
    device = FakeGatt({thingy.CONFIG_UUID: bytes(8)})
    assert "has 8 bytes, expected 9" in opening_fails(device, thingy.DEVICE.open)


@pytest.mark.parametrize("name", ["Nicla", "MetaMotion", "Polar"])
def test_what_was_started_is_stopped_when_the_rest_fails(name: str) -> None:
    script = SCRIPTS[name]
    device = script.device()

    def fails_last(gatt: FakeGatt, uuid: str, data: bytes) -> None:
        if gatt.log[-1] == script.opening[-1]:
            raise OSError("the link is gone")
        script.answer(gatt, uuid, data)

    device.answer = fails_last
    with pytest.raises(OSError, match="the link is gone"):
        asyncio.run(script.open(device, lambda _: None))
    assert device.log == script.opening + script.closing
