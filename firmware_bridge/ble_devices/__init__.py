"""Wearables that speak Bluetooth Low Energy, one module each."""

from __future__ import annotations

from firmware_bridge.ble_devices import (
    dot,
    edge_ml,
    metamotion,
    movesense,
    muse,
    native_ble,
    openearable,
    polar,
    thingy,
    witmotion,
)
from firmware_bridge.link import Advert, BleDevice

DEVICES: tuple[BleDevice, ...] = (
    native_ble.DEVICE,
    polar.VERITY_SENSE,
    polar.H10,
    polar.OH1,
    movesense.DEVICE,
    witmotion.DEVICE,
    thingy.DEVICE,
    openearable.DEVICE,  # before the boards whose service it has
    edge_ml.DEVICE,
    dot.DEVICE,
    metamotion.DEVICE,
    muse.DEVICE,
)
"""In the order in which they are asked whether an advertisement is theirs."""


def recognise(advert: Advert) -> BleDevice | None:
    """The kind of device that an advertisement is of; None for one that this version does not
    know."""
    return next((device for device in DEVICES if device.matches(advert)), None)
