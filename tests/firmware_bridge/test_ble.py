"""The BLE link through bleak's public API, against virtual wearables."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from bleak.exc import (
    BleakBluetoothNotAvailableError,
    BleakBluetoothNotAvailableReason,
    BleakDBusError,
    BleakError,
)

from firmware_bridge import ble
from firmware_bridge.ble import Backend, Found, choose, run_ble, scan, why_no_bluetooth
from firmware_bridge.errors import AuraError, InputError
from firmware_bridge.link import Advert
from firmware_bridge.live import LiveSource
from firmware_bridge.samples import Samples
from tests.conftest import walk
from tests.firmware_bridge.virtual_ble import Air, Strap, VeritySense, Wearable, WitMotion

LISTEN_S = 0.5
"""Twenty-five times the interval at which the virtual wearables advertise."""

PLENTY_S = 60.0
"""A scan that would fail the test by its length if it did not end early."""


@pytest.fixture
def air() -> Iterator[Air]:
    with Air() as room:
        yield room


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ble, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(ble, "_FIND_S", 0.2)


class Live:
    """A wearable's stream, and what the user is told."""

    def __init__(self, wearable: Wearable, backend: Backend | None = None) -> None:
        self.said: list[str] = []
        backend = backend or wearable.air.backend()
        one = choose(scan(PLENTY_S, wearable.address, backend), wearable.address)
        say = self.said.append
        self.source = LiveSource(lambda inbox: run_ble(one, inbox, say, backend), say)

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()

    def until(self, enough: Callable[[Samples], bool]) -> Samples:
        """All samples up to those with which it is enough; never without end, for every wearable
        has only so many."""
        parts: list[Samples] = []
        for samples in self.source:
            parts.append(samples)
            if enough(Samples.joined(parts)):
                return Samples.joined(parts)
        raise AssertionError(f"the stream ended; the user was told {self.said}")

    def read(self, n: int) -> Samples:
        """At least n samples."""
        return self.until(lambda samples: len(samples) >= n)

    def read_until_said(self, words: str) -> Samples:
        """Samples until the user was told something."""
        return self.until(lambda _: self.has_said(words))

    def has_said(self, words: str) -> bool:
        return any(words in line for line in self.said)

    def close(self) -> list[str]:
        """Stop; what the user was told."""
        self.source.close()
        return self.said


def first_index(samples: Samples, sent: Samples) -> int:
    """Where in what was sent the first sample is."""
    same = np.abs(sent.acc_mps2 - samples.acc_mps2[0]).max(axis=1) < 1e-6
    (found,) = np.flatnonzero(same)
    return int(found)


def test_a_scan_lists_the_strongest_first_and_recognises(air: Air) -> None:
    air.add(Strap(walk(1, 50), rssi_dbm=-80))
    air.add(VeritySense(walk(1, 52), rssi_dbm=-60))
    air.add(Wearable("Toaster\x1b[2J", walk(1, 50), rssi_dbm=-40))
    found = scan(LISTEN_S, backend=air.backend())
    assert [f.advert.name for f in found] == ["Toaster?[2J", "Polar Sense 0A1B2C3D", "Strap"]
    assert [f.advert.rssi_dbm for f in found] == [-40, -60, -80]
    assert [f.device and f.device.name for f in found] == [
        None,
        "Polar Verity Sense",
        "aura-edge firmware",
    ]
    assert "-60 dBm" in str(found[1]) and found[1].advert.address in str(found[1])


def test_a_scan_for_one_ends_when_it_is_heard(air: Air) -> None:
    strap = air.add(Strap(walk(1, 50)))
    for wanted in ("STRAP", strap.address.lower()):
        found = scan(PLENTY_S, wanted, air.backend())
        assert choose(found, wanted).advert.address == strap.address


def advert(name: str, address: str, rssi_dbm: int | None = -50) -> Found:
    said = Advert(address, name, rssi_dbm, frozenset())
    return Found(said, ble.recognise(said))


SENSE, OTHER = advert("Polar Sense 1", "A:1"), advert("Polar Sense 2", "A:2", None)
PHONE = advert("Phone", "A:3")


def test_the_only_recognised_device_is_chosen() -> None:
    assert choose([PHONE, SENSE]) is SENSE
    assert choose([OTHER, SENSE], "polar sense 1") is SENSE
    assert choose([OTHER, SENSE], "a:2") is OTHER


def test_of_several_one_has_to_be_named_or_asked_for() -> None:
    with pytest.raises(InputError, match=r"(?s)2 wearables.*Polar Sense 1.*A:1.*Polar Sense 2"):
        choose([SENSE, PHONE, OTHER])
    assert choose([SENSE, PHONE, OTHER], ask=lambda several: several[1]) is OTHER


@pytest.mark.parametrize(
    ("found", "wanted", "message"),
    [
        ([], "", "Switch it on, bring it near"),
        ([PHONE], "", r"(?s)heard were:.*Phone.*recognised are: .*Polar Verity Sense"),
        ([SENSE], "Strap", r"(?s)'Strap' was not heard.*Polar Sense 1"),
        ([SENSE, PHONE], "Phone", "of no kind that this version recognises"),
    ],
)
def test_no_device_is_an_error_with_a_cure(found: list[Found], wanted: str, message: str) -> None:
    with pytest.raises(AuraError, match=message):
        choose(found, wanted)


def test_a_verity_sense_streams_what_it_measures_and_is_told_to_stop(air: Air) -> None:
    sense = VeritySense(walk(20, 52))
    air.add(sense)
    with Live(sense) as live:
        got = live.read(48)
        said = live.close()
    sent = sense.as_sent()
    assert got.gyro_rads is not None and sent.gyro_rads is not None
    first = first_index(got, sent)
    same = slice(first, first + len(got))
    np.testing.assert_allclose(got.acc_mps2, sent.acc_mps2[same], atol=1e-9)
    # Both streams bear stamps of one clock, however late each arrives.
    np.testing.assert_allclose(got.gyro_rads, sent.gyro_rads[same], atol=1e-6)
    assert sense.told == ["start acc", "start gyro", "stop acc", "stop gyro"]
    assert said[0] == (
        "connected to Polar Sense 0A1B2C3D (Polar Verity Sense): "
        "acc 52 Hz +-8 g, gyro 52 Hz +-2000 deg/s, battery 87 %"
    )
    assert said[-1] == "Polar Sense 0A1B2C3D: told to stop"


def test_our_own_format_streams_without_a_battery_service(air: Air) -> None:
    strap = Strap(walk(20, 100), battery_percent=None)
    air.add(strap)
    with Live(strap) as live:
        got = live.read(50)
        said = live.close()
    assert got.gyro_rads is not None
    sent = strap.as_sent()[: len(got)]
    np.testing.assert_allclose(got.acc_mps2, sent.acc_mps2, atol=1e-6)
    np.testing.assert_allclose(got.gyro_rads, sent.gyro_rads, atol=1e-6)
    assert strap.told == ["start", "stop"]
    assert "battery" not in said[0]


def test_a_witmotion_streams_while_it_is_subscribed_to(air: Air) -> None:
    sensor = WitMotion(walk(20, 100))
    air.add(sensor)
    with Live(sensor) as live:
        got = live.read(30)
    sent = sensor.as_sent()
    first = first_index(got, sent)
    np.testing.assert_allclose(got.acc_mps2, sent.acc_mps2[first : first + len(got)], atol=1e-9)
    assert sensor.told == ["subscribe", "ffaa6988b5", "ffaa030900", "unsubscribe"]


def test_the_smallest_packets_carry_one_sample_each(air: Air) -> None:
    strap = Strap(walk(20, 100))
    air.add(strap)
    with Live(strap, air.backend(mtu=23)) as live:
        got = live.read(30)
        counts = live.source.report().counts
    np.testing.assert_allclose(got.acc_mps2, strap.as_sent().acc_mps2[: len(got)], atol=1e-6)
    assert not any(counts.values())


def test_what_a_firmware_that_ignores_the_packet_size_loses_is_counted(air: Air) -> None:
    """Longer values are cut off without a word, by this radio as by real ones."""
    strap = Strap(walk(20, 100), per_message=5, ignores_mtu=True)
    air.add(strap)
    with Live(strap, air.backend(mtu=23)) as live:
        got = live.read(8)
        counts = live.source.report().counts["imu"]
    whole = strap.as_sent().acc_mps2[5::6]
    np.testing.assert_allclose(got.acc_mps2, whole[: len(got)], atol=1e-6)
    assert counts["cut short"] >= 8


def test_after_a_drop_the_same_stream_goes_on_with_a_gap(air: Air) -> None:
    sense = VeritySense(walk(60, 52))
    air.add(sense)
    with Live(sense) as live:
        before = live.read(16)
        sense.drop()
        live.read_until_said("connected again")
        after = live.read(16)
        report = live.source.report()
    assert report.reconnects == 1 and sense.connected == 2
    assert live.has_said("connection lost; connecting again in 0.01 s")
    t_s = np.concatenate([before.t_s, after.t_s])
    assert (np.diff(t_s) > 0).all()
    sent = sense.as_sent()
    lost_s = sent.t_s[first_index(after, sent)] - sent.t_s[first_index(before, sent)]
    assert after.t_s[0] - before.t_s[0] == pytest.approx(lost_s, abs=0.1)
    assert sense.told == ["start acc", "start gyro"] * 2 + ["stop acc", "stop gyro"]


def test_a_device_out_of_range_is_looked_for_ever_less_often(
    air: Air, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ble, "LONGEST_PAUSE_S", 0.04)
    strap = Strap(walk(60, 100))
    air.add(strap)
    with Live(strap) as live:
        live.read(10)
        monkeypatch.setattr(ble, "_FIND_S", 0.05)
        strap.hide()
        poll(lambda: live.has_said("(failed attempt 4)"))
        strap.show()
        live.read_until_said("connected again")
        live.read(10)
    lines = [line for line in live.said if "connecting again in" in line]
    pauses = [line.split()[-2] for line in lines]
    assert pauses[:5] == ["0.01", "0.02", "0.04", "0.04", "0.04"]
    assert "not heard for 0.05 s (failed attempt 1)" in lines[1]
    assert live.source.report().reconnects == 1


def test_stopping_while_the_device_is_looked_for(air: Air, monkeypatch: pytest.MonkeyPatch) -> None:
    strap = Strap(walk(60, 100))
    air.add(strap)
    with Live(strap) as live:
        live.read(10)
        monkeypatch.setattr(ble, "_FIND_S", PLENTY_S)
        strap.hide()
        poll(lambda: live.has_said("connecting again"))
        said = live.close()
    assert not any("told to stop" in line or "does not" in line for line in said)


def test_a_device_that_refuses_says_why(air: Air) -> None:
    sense = VeritySense(walk(5, 52), refuses=13)
    air.add(sense)
    with Live(sense) as live, pytest.raises(AuraError, match="charger"):
        live.read(1)
    assert sense.connected == 1


def test_a_device_that_refuses_after_a_drop_is_asked_again(air: Air) -> None:
    sense = VeritySense(walk(60, 52))
    air.add(sense)
    with Live(sense) as live:
        live.read(8)
        sense.refuses = 13
        sense.drop()
        poll(lambda: live.has_said("charger"))
        sense.refuses = 0
        live.read_until_said("connected again")
    assert live.source.report().reconnects == 1


def test_a_link_that_drops_while_the_device_is_started_is_tried_again(air: Air) -> None:
    sense = VeritySense(walk(60, 52), drops_on_start=1)
    air.add(sense)
    with Live(sense) as live:
        live.read(8)
    assert sense.connected == 2
    assert live.source.report().reconnects == 0


def test_a_connected_device_that_is_silent_is_connected_anew(
    air: Air, monkeypatch: pytest.MonkeyPatch
) -> None:
    strap = Strap(walk(60, 100), mute=True)
    air.add(strap)
    monkeypatch.setattr(ble, "SILENCE_S", 0.3)
    with Live(strap) as live:

        def speak_up() -> None:
            poll(lambda: live.has_said("connected, but silent for 0.3 s"))
            strap.mute = False

        threading.Thread(target=speak_up, daemon=True).start()
        live.read(10)
    assert live.source.report().reconnects >= 1


def test_a_device_of_another_make_with_that_name(air: Air) -> None:
    other = Wearable("Polar Sense 0", walk(1, 50))
    air.add(other)
    with Live(other) as live, pytest.raises(AuraError, match="has no characteristic fb005c81"):
        live.read(1)


def poll(happened: Callable[[], bool]) -> None:
    """Wait for what another thread does; a minute means never."""
    for _ in range(6000):
        if happened():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")


OFF = BleakBluetoothNotAvailableError("off", BleakBluetoothNotAvailableReason.POWERED_OFF)


def test_without_bluetooth_a_scan_says_what_to_do(air: Air) -> None:
    air.trouble = OFF
    with pytest.raises(AuraError, match="Bluetooth is off: switch it on"):
        scan(LISTEN_S, backend=air.backend())
    air.trouble = BleakError("radio on fire")
    with pytest.raises(AuraError, match="Bluetooth failed: BleakError: radio on fire"):
        scan(LISTEN_S, backend=air.backend())


def test_bluetooth_that_goes_off_is_waited_for(air: Air) -> None:
    strap = Strap(walk(60, 100))
    air.add(strap)
    with Live(strap) as live:
        live.read(10)
        air.trouble = OFF
        strap.drop()
        poll(lambda: live.has_said("Bluetooth is off"))
        air.trouble = None
        live.read_until_said("connected again")
        live.read(10)


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32", "freebsd14"])
@pytest.mark.parametrize("reason", BleakBluetoothNotAvailableReason)
def test_every_reason_has_a_cure_on_every_platform(
    platform: str, reason: BleakBluetoothNotAvailableReason
) -> None:
    why = why_no_bluetooth(BleakBluetoothNotAvailableError("x", reason), platform)
    assert why and "luetooth" in why and ":" in why


def windows_error(hresult: int) -> OSError:
    error = OSError(22, "as Windows says it")
    error.winerror = hresult  # type: ignore[attr-defined]  # Windows' own OSError has it
    return error


@pytest.mark.parametrize(
    ("error", "platform", "words"),
    [
        (PermissionError(13, "denied"), "linux", "usermod -aG bluetooth"),
        (PermissionError(13, "denied"), "darwin", "Privacy & Security > Bluetooth"),
        (FileNotFoundError(2, "no socket"), "linux", "-v /run/dbus:/run/dbus"),
        (ConnectionRefusedError(111, "refused"), "linux", "systemctl start dbus"),
        (BleakDBusError("org.freedesktop.DBus.Error.ServiceUnknown", []), "linux", "apt install"),
        (BleakDBusError("org.freedesktop.DBus.Error.AccessDenied", []), "linux", "usermod"),
        (BleakDBusError("org.bluez.Error.NotReady", []), "linux", "bluetoothctl power on"),
        (BleakDBusError("org.bluez.Error.Failed", []), "linux", None),
        (FileNotFoundError(2, "?"), "win32", None),
        (windows_error(-2147020577), "win32", "Settings > Bluetooth & devices"),
        (windows_error(-2147024891), "win32", "Privacy & security > Radios"),
        (windows_error(-2147023836), "win32", None),
        (BleakError("something else"), "linux", None),
    ],
)
def test_what_the_system_raises_is_explained(
    error: Exception, platform: str, words: str | None
) -> None:
    why = why_no_bluetooth(error, platform)
    assert why is None if words is None else why and words in why


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="D-Bus is Linux'")


@linux_only
def test_a_system_without_dbus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'nothing'}")
    with pytest.raises(AuraError, match=r"D-Bus.*is not there"):
        scan(LISTEN_S)


@linux_only
@pytest.mark.skipif(not shutil.which("dbus-daemon"), reason="needs dbus-daemon")
def test_a_system_without_bluez(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"unix:path={tmp_path / 'bus'}"
    argv = ["dbus-daemon", "--session", "--nofork", "--print-address", f"--address={address}"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as bus:
        assert bus.stdout is not None
        bus.stdout.readline()  # it listens now
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        try:
            with pytest.raises(AuraError, match=r"BlueZ.*does not run"):
                scan(LISTEN_S)
        finally:
            bus.terminate()
