"""`edge-run` on live devices: virtual wearables over BLE, ptys for serial ports."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bleak.exc import BleakBluetoothNotAvailableError
from bleak.exc import BleakBluetoothNotAvailableReason as Reason

import edge.source
from edge.bundle import DEFAULT_BUNDLE, load_bundle
from edge.cli import main
from edge.labels import resolve_labels
from edge.log.read import LogReader
from edge.pipeline import Pipeline, Prediction
from edge.source import Pace
from edge.window import every_hop
from firmware_bridge import ble
from firmware_bridge.samples import Samples
from tests.conftest import REPO, walk
from tests.firmware_bridge.virtual_ble import OUTING, Air, Strap, VeritySense, Wearable

LABELS = ["walking", "sitting", "lying"]
posix_only = pytest.mark.skipif(os.name == "nt", reason="signals and ptys")


@pytest.fixture
def air(monkeypatch: pytest.MonkeyPatch) -> Iterator[Air]:
    """Virtual wearables instead of the system's Bluetooth."""
    monkeypatch.setattr(ble, "SCAN_S", 0.5)
    with Air() as room:
        monkeypatch.setattr(edge.source, "BLE_BACKEND", room.backend())
        yield room


class Watched(io.StringIO):
    """A text file that tells when something was written to it for the nth time."""

    def __init__(self, words: str, n: int = 1) -> None:
        super().__init__()
        self._words, self._n = words, n
        self.happened = threading.Event()

    def write(self, text: str) -> int:
        self._n -= self._words in text
        if self._n <= 0:
            self.happened.set()
        return super().write(text)


def interrupt_when(happened: threading.Event) -> None:
    """Press Ctrl-C once something happened."""

    def press() -> None:
        if happened.wait(60):
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()


def virtual_run(air: list[str], *argv: str) -> subprocess.Popen[str]:
    """`edge-run` as a process of its own, in an air with these wearables and incidents."""
    module = ["-m", "tests.firmware_bridge.virtual_ble"]
    return subprocess.Popen(
        [sys.executable, *module, *air, "--", *argv, "--labels", ",".join(LABELS)],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def replayed(samples: Samples) -> list[Prediction]:
    bundle = load_bundle(DEFAULT_BUNDLE)
    pipeline = Pipeline(bundle, resolve_labels(LABELS, bundle))
    return pipeline.push(samples) + pipeline.finish()


@pytest.fixture(scope="module", autouse=True)
def verity_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path]]:
    """A run that is started first, so that it streams while the other tests run; and its log."""
    log = tmp_path_factory.mktemp("verity") / "log.db"
    argv = ["--device", "ble:Polar Sense 0A1B2C3D", "--format", "jsonl", "--log", str(log)]
    argv += ["--record", str(log.with_name("raw.parquet"))]
    with virtual_run(["verity", "--away-after", "8.5"], *argv) as process:
        yield process, log
        process.kill()


def test_ctrl_c_before_the_first_window_still_tells_the_device_to_stop(
    air: Air, capsys: pytest.CaptureFixture[str]
) -> None:
    strap = Strap(walk(60, 100))
    air.add(strap)
    interrupt_when(strap.started)
    assert main(["--device", "ble", "--no-log"]) == 130
    err = capsys.readouterr().err
    assert strap.told == ["start", "stop"]
    assert "Strap" in err and "-50 dBm" in err and "Strap: told to stop" in err
    assert "0 windows" in err and "error" not in err


def test_a_wearable_without_gyroscope_says_so(air: Air, monkeypatch: pytest.MonkeyPatch) -> None:
    err = Watched("no gyroscope")
    monkeypatch.setattr(sys, "stderr", err)
    air.add(VeritySense(walk(60, 52), acc_only=True))
    interrupt_when(err.happened)
    assert main(["--device", "ble", "--no-log"]) == 130, err.getvalue()
    assert "connected to Polar H10 0A1B2C3D (Polar H10): acc 52 Hz +-8 g, battery" in err.getvalue()


def test_several_wearables_and_nobody_to_ask(air: Air, capsys: pytest.CaptureFixture[str]) -> None:
    air.add(Strap(walk(1, 100)))
    air.add(VeritySense(walk(1, 52)))
    assert main(["--device", "ble", "--no-log"]) == 2
    err = capsys.readouterr().err
    assert "say which" in err and err.count("C0:00:00:00:00:") >= 2


@posix_only
def test_several_wearables_on_a_terminal_are_asked_for(
    air: Air, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    air.add(Strap(walk(60, 100), rssi_dbm=-40))
    sense = VeritySense(walk(60, 52), rssi_dbm=-60)
    air.add(sense)
    interrupt_when(sense.started)
    ours, theirs = os.openpty()
    os.write(ours, b"7\nstrap\n2\n")
    with os.fdopen(theirs) as terminal, os.fdopen(os.dup(theirs), "w") as said:
        monkeypatch.setattr(sys, "stdin", terminal)
        monkeypatch.setattr(sys, "stderr", said)
        assert main(["--device", "ble", "--no-log"]) == 130
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert shown.count("which one? 1 to 2:") == 3
    assert sense.told[:2] == ["start acc", "start gyro"]


def test_no_wearable_is_a_failure_with_a_cure(air: Air, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "ble", "--no-log"]) == 1
    assert "Switch it on, bring it near" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("platform", "cures"),
    [
        ("linux", ("bluetoothctl list", "bluetoothctl power on", "usermod -aG bluetooth")),
        ("darwin", ("virtual machines", "System Settings > Bluetooth", "Privacy & Security")),
        ("win32", ("Device Manager", "Settings > Bluetooth & devices", "Privacy & security")),
    ],
)
def test_bluetooth_that_cannot_be_used_is_explained(
    air: Air,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    cures: tuple[str, ...],
) -> None:
    explain = ble.why_no_bluetooth
    monkeypatch.setattr(ble, "why_no_bluetooth", lambda error: explain(error, platform))
    reasons = (Reason.NO_BLUETOOTH, Reason.POWERED_OFF, Reason.DENIED_BY_USER)
    for reason, cure in zip(reasons, cures, strict=True):
        air.trouble = BleakBluetoothNotAvailableError("as bleak says it", reason)
        assert main(["--device", "ble", "--no-log"]) == 1
        said = capsys.readouterr().err
        assert "error: " in said and "luetooth" in said and cure in said
        assert "Traceback" not in said
        assert main(["--list-devices"]) == 0 and cure in capsys.readouterr().err


def test_a_device_that_refuses_is_a_failure(air: Air, capsys: pytest.CaptureFixture[str]) -> None:
    air.add(VeritySense(walk(5, 52), refuses=13))
    assert main(["--device", "ble", "--no-log"]) == 1
    assert "error: the Polar sensor refused to start acc" in capsys.readouterr().err


def test_a_rate_is_asked_of_a_device_that_has_it(
    air: Air, capsys: pytest.CaptureFixture[str]
) -> None:
    sense = VeritySense(walk(60, 52))
    air.add(sense)
    argv = ["--device", "ble:Polar Sense 0A1B2C3D", "--no-log", "--rate"]
    interrupt_when(sense.started)  # which it must not before the second run
    assert main([*argv, "104"]) == 2  # this one's SDK mode has no more than it has without
    assert "not measure at 104 Hz; it offers 52" in capsys.readouterr().err
    assert sense.told == ["SDK mode on", "stop acc", "stop gyro", "SDK mode off"]
    assert main([*argv, "52"]) == 130
    assert sense.told[4:] == ["start acc", "start gyro", "stop acc", "stop gyro"]
    air.add(Strap(walk(1, 100)))
    assert main(["--device", "ble:Strap", "--no-log", "--rate", "52"]) == 2
    assert "Strap: the rate of this kind of device is not chosen" in capsys.readouterr().err


def test_devices_are_listed_with_signal_strength(
    air: Air, capsys: pytest.CaptureFixture[str]
) -> None:
    air.add(Strap(walk(1, 100), rssi_dbm=-70))
    air.add(Wearable("Toaster", walk(1, 50)))
    air.add(Wearable("", walk(1, 50)))
    assert main(["--list-devices"]) == 0
    out, err = capsys.readouterr()
    strap, toaster = (line for line in out.splitlines() if line.startswith("ble:"))
    assert "Strap" in strap and "-70 dBm" in strap and "aura-edge firmware" in strap
    assert "Toaster" in toaster and "(not recognised)" in toaster
    assert "and 1 BLE devices that do not tell their names" in err


def test_devices_are_listed_without_bluetooth_too(
    air: Air, capsys: pytest.CaptureFixture[str]
) -> None:
    air.trouble = ble.BleakError("no radio")
    assert main(["--list-devices"]) == 0
    assert "note: Bluetooth failed: BleakError: no radio" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--device", "ble:"], "'ble:' is not known"),
        (["--device", "sim:2"], "'sim:2' is not known"),
        (["--device", "ble", "--acc-unit", "g"], "go with --replay and --device serial"),
        (["--device", "ble", "--baud", "9600"], "--baud with --device serial"),
        (["--device", "phyphox:x", "--rate", "50"], "goes with --device serial and --device ble"),
        (["--device", "ble", "--speed", "max"], "a device sets the pace"),
        (["--device", "serial:x", "--time-unit", "s"], "--time-unit goes with --replay"),
        (["--replay", "x.csv", "--baud", "9600"], "--baud go with --device"),
    ],
)
def test_options_that_do_not_go_with_the_device(
    capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    assert main([*argv, "--no-log"]) == 2
    assert message in capsys.readouterr().err


class Board:
    """A board on a pty that prints CSV lines of a motion."""

    def __init__(self, motion: Samples, rate_hz: float, unplugged: threading.Event) -> None:
        import tty

        assert motion.gyro_rads is not None
        self._ours, self._theirs = os.openpty()
        tty.setraw(self._ours)
        tty.setraw(self._theirs)
        self.port = os.ttyname(self._theirs)
        self._unplugged = unplugged
        self._period_s = 1 / rate_hz
        values = np.hstack([motion.acc_mps2 / 9.80665, np.degrees(motion.gyro_rads)])
        self._lines = ["boot: rev 3\r\n", "aX,aY,aZ,gX,gY,gZ\r\n"]
        self._lines += [",".join(f"{v:.4f}" for v in row) + "\r\n" for row in values]
        threading.Thread(target=self._print, daemon=True).start()

    def _print(self) -> None:
        due_s = time.monotonic()
        for line in self._lines:
            if self._unplugged.is_set():
                break
            os.write(self._ours, line.encode())
            due_s += self._period_s
            time.sleep(max(0.0, due_s - time.monotonic()))
        os.close(self._ours)
        os.close(self._theirs)


@posix_only
def test_a_board_on_a_serial_port(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Watched("start_s", 3), Watched("opening it again")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    motion = walk(60, 50)
    board = Board(motion, 50, unplugged=out.happened)
    interrupt_when(err.happened)
    argv = ["--device", f"serial:{board.port}", "--format", "jsonl", "--no-log"]
    assert main([*argv, "--labels", ",".join(LABELS), "--hop", "0.2"]) == 130, err.getvalue()
    windows = [json.loads(line) for line in out.getvalue().splitlines()]
    said = err.getvalue()
    assert {w["label"] for w in windows} <= {p.label for p in replayed(motion)}
    assert all(w["rate_hz"] == pytest.approx(50, rel=0.1) for w in windows)
    assert f"{board.port} at 115200 baud: CSV lines" in said and "acc in g" in said
    assert "was unplugged" in said


def test_a_machine_that_keeps_up_leaves_no_window_out() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])

    def source() -> Iterator[Samples]:
        for k in range(60):
            now[0] += 0.5  # waits for them
            yield walk(0.5, 50).shifted(k / 2)

    spans = pace.spans(every_hop(1.0))
    for _ in pace.samples(source()):
        next(spans)
        now[0] += 0.3  # works on them
    assert pace.skipped == 0


def test_a_machine_that_is_too_slow_leaves_out_ever_more_until_it_keeps_up() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    spans = pace.spans(every_hop(1.0))
    starts = []
    for _ in range(7):
        starts.append(next(spans)[0] / 200)
        now[0] += 0.9
    assert starts == [0, 1, 2, 4, 8, 16, 32]
    assert pace.skipped == sum([1, 3, 7, 15])

    def source() -> Iterator[Samples]:
        now[0] += 0.01
        yield walk(1, 50)

    assert len(list(pace.samples(source()))) == 1
    left_out = pace.skipped
    assert [next(spans)[0] / 200 for _ in range(3)] == [33, 34, 35]
    assert pace.skipped == left_out


@posix_only
def test_a_verity_sense_gives_the_labels_of_its_recording_and_one_log_over_a_drop(
    verity_run: tuple[subprocess.Popen[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    process, log = verity_run
    assert process.stdout is not None and process.stderr is not None
    windows = [json.loads(process.stdout.readline())]
    while windows[-1]["missing"] == 0:  # until the link was lost and came back
        windows.append(json.loads(process.stdout.readline()))
    process.send_signal(signal.SIGTERM)
    windows += [json.loads(line) for line in process.stdout]
    err = process.stderr.read()
    process.wait(60)
    assert process.returncode == 143 and "Traceback" not in err
    sent = VeritySense(OUTING).as_sent()
    expected = replayed(sent[: 8 * VeritySense.RATE_HZ])
    for window, same in zip(windows[:3], expected, strict=False):
        assert window["label"] == same.label and window["missing"] == 0
        assert window["similarity"] == pytest.approx(same.top[0].similarity, abs=0.02)
    assert "connected to Polar Sense 0A1B2C3D (Polar Verity Sense): acc 52 Hz" in err
    assert "battery 87 %" in err and "Hz measured" in err
    told = ", ".join(["start acc, start gyro"] * 2 + ["stop acc, stop gyro"])
    assert f"[Polar Sense 0A1B2C3D was told: {told}]" in err
    assert "connection lost; connecting again" in err and "connected again after" in err
    with LogReader(log) as reader:
        (session,) = reader.sessions()  # one, whatever the drop
    assert session.source == "ble:Polar Sense 0A1B2C3D" and session.windows >= len(windows)
    recording = str(log.with_name("raw.parquet"))
    labels = ["--labels", ",".join(LABELS), "--no-log", "--format", "jsonl"]
    assert main(["--replay", recording, *labels]) == 0
    replayed_out, said = capsys.readouterr()
    again = [json.loads(line) for line in replayed_out.splitlines()]
    alike = ("start_s", "label", "similarity", "missing", "rate_hz")
    # The end of a recording is classified in windows that a run which is stopped does not wait for.
    again = again[: len(windows)]
    assert [[w[k] for k in alike] for w in again] == [[w[k] for k in alike] for w in windows]
    assert "raw recording of ble:Polar Sense 0A1B2C3D (acc 52 Hz" in said
