"""MbientLab MetaMotion with a BMI160 (R, RL, C).

Source: mbientlab/MetaWear-SDK-Cpp, `test/test_accelerometer_bmi160.py`, `test_gyro_bmi160.py`,
`src/metawear/sensor/accelerometer.cpp` (implementations of the module).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

import numpy as np

from firmware_bridge.ble_devices.conversation import (
    FrameDecoder,
    Streaming,
    Talk,
    UnreadableError,
    any_of,
    by_first_byte,
    farewell_quietly,
    named,
    offering,
    within,
)
from firmware_bridge.errors import AuraError
from firmware_bridge.link import BleDevice, Decoder, Deliver, GattClient, Packet
from firmware_bridge.samples import ACC_UNITS_MPS2, GYRO_UNITS_RADS

SERVICE_UUID = "326a9000-85cb-9195-d9dd-464cfbbae75a"
COMMAND_UUID = "326a9001-85cb-9195-d9dd-464cfbbae75a"
NOTIFY_UUID = "326a9006-85cb-9195-d9dd-464cfbbae75a"

RATE_HZ = 100
_START, _ENABLE, _CONFIG, _INFO = 1, 2, 3, 0x80

BMI160 = 1
"""Implementation of the accelerometer module, as a board tells it."""

_OTHERS = {0: "an MMA8452Q", 3: "a BMA255", 4: "a BMI270"}


@dataclass(frozen=True)
class Module:
    """A sensor of the board."""

    stream: Literal["acc", "gyro"]
    number: int
    config: bytes
    """Rate (0x28: 100 Hz) and range."""

    single: int
    """Register that notifies one sample."""

    packed: int
    """Register that notifies three."""

    si: float
    details: str


ACC = Module("acc", 0x03, b"\x28\x08", 0x04, 0x1C, ACC_UNITS_MPS2["g"] / 4096, "+-8 g")
GYRO = Module(
    "gyro", 0x13, b"\x28\x00", 0x05, 0x07, GYRO_UNITS_RADS["deg/s"] / 16.4, "+-2000 deg/s"
)


class MetaMotionDecoder(FrameDecoder):
    """Notifications of one module: one sample, or three. There is no stamp and no counter.

    Args:
        module: whose.
        si: from raw values to m/s^2 or rad/s, where its range is another than `Module.config`'s.
    """

    def __init__(self, module: Module, si: float | None = None) -> None:
        super().__init__()
        self._module = module
        self._si = module.si if si is None else si

    def _packets(self, data: bytes) -> list[Packet]:
        if len(data) < 2 or data[0] != self._module.number:
            raise UnreadableError("other module")
        samples = {self._module.single: 1, self._module.packed: 3}.get(data[1])
        if samples is None:
            raise UnreadableError("register")
        if len(data) != 2 + 6 * samples:
            raise UnreadableError("length")
        values = np.frombuffer(data[2:], "<i2").reshape(-1, 3) * self._si
        return [Packet(self._module.stream, values)]


def start_commands(module: Module) -> list[bytes]:
    """What configures a module and starts its stream, in order."""
    number = module.number
    return [
        bytes([number, _CONFIG]) + module.config,
        bytes([number, module.packed, 1]),
        bytes([number, _ENABLE, 1, 0]),
        bytes([number, _START, 1]),
    ]


def stop_commands(module: Module) -> list[bytes]:
    """What stops it."""
    number = module.number
    return [
        bytes([number, _START, 0]),
        bytes([number, _ENABLE, 0, 1]),
        bytes([number, module.packed, 0]),
    ]


async def open_stream(client: GattClient, deliver: Deliver) -> Streaming:
    """Subscribe, ask which accelerometer there is, start both sensors.

    Raises:
        AuraError: it is no BMI160; the device does not answer.
    """
    talk = Talk(client)
    modules = (ACC, GYRO)
    decoders = {module.number: MetaMotionDecoder(module) for module in modules}
    decode = by_first_byte(decoders, deliver)
    implementation: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def heard(data: bytes) -> None:
        if len(data) >= 2 and data[1] == _INFO:  # it answers a question; others are not decoded
            if data[0] == ACC.number and not implementation.done():
                implementation.set_result(data[2] if len(data) > 2 else -1)
            return
        decode(data)

    async def farewell() -> None:
        for module in modules:
            for command in stop_commands(module):
                await talk.write(COMMAND_UUID, command)
        await talk.unlisten(NOTIFY_UUID)

    await talk.listen(NOTIFY_UUID, heard)
    await talk.write(COMMAND_UUID, bytes([ACC.number, _INFO]))
    which = await within(implementation, "say which accelerometer it has")
    if which != BMI160:
        other = _OTHERS.get(which, "an unknown accelerometer or none")
        raise AuraError(f"this MetaWear board has {other}, this version knows those with a BMI160")
    try:
        for module in modules:
            for command in start_commands(module):
                await talk.write(COMMAND_UUID, command)
    except BaseException:
        await farewell_quietly(farewell)
        raise
    details = ", ".join(f"{module.stream} {RATE_HZ} Hz {module.details}" for module in modules)
    by_stream: dict[str, Decoder] = {module.stream: decoders[module.number] for module in modules}
    return Streaming(by_stream, details, float(RATE_HZ), farewell)


DEVICE = BleDevice(
    "MbientLab MetaMotion (BMI160)",
    any_of(named("MetaWear", "MetaMotion"), offering(SERVICE_UUID)),
    open_stream,
    has_gyro=True,
    verified="vendor test vectors",
)
