"""A real wearable, where there is one: opt-in, for nothing else here touches hardware.

    AURA_HARDWARE="ble:Polar Sense 0A1B2C3D" python -m pytest tests/firmware_bridge/test_hardware.py

takes what `edge-run --device` takes, several separated by ";". Lay the device down and leave it
alone: it is streamed from for 20 s, told to stop, and asked once more.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import DEFAULT_BUNDLE, load_bundle
from edge.labels import resolve_labels
from edge.pipeline import Pipeline, Prediction
from edge.recording import open_recording
from edge.source import Device, open_device
from firmware_bridge.clock import ClockReport
from firmware_bridge.live import LinkReport, LiveSource
from firmware_bridge.samples import STANDARD_GRAVITY_MPS2, Samples

URIS = [uri.strip() for uri in os.environ.get("AURA_HARDWARE", "").split(";") if uri.strip()]

pytestmark = pytest.mark.skipif(
    not URIS,
    reason="no hardware: set AURA_HARDWARE to what edge-run --device takes (ble:NAME, serial:PORT)",
)

STREAM_S = 20.0
PATIENCE_S = 90.0
"""For a device to be found, to start, and to send so much."""


@contextmanager
def opened(uri: str, said: list[str]) -> Iterator[tuple[Device, LiveSource]]:
    """A device that is closed at the end, and after a while in any case."""
    device = open_device(uri, said.append)
    assert device.live is not None, f"{uri} is no hardware"
    limit = threading.Timer(PATIENCE_S, device.live.close)
    limit.start()
    try:
        yield device, device.live
    finally:
        limit.cancel()
        device.live.close()


@dataclass(frozen=True)
class Session:
    """What came of a device in `STREAM_S`, and what was made of it."""

    uri: str
    samples: Samples
    predictions: list[Prediction]
    report: LinkReport
    said: list[str]
    recording: Path

    @property
    def clock(self) -> ClockReport:
        """Of the accelerometer."""
        return self.report.streams["acc" if "acc" in self.report.streams else "imu"]


def pipeline() -> Pipeline:
    bundle = load_bundle(DEFAULT_BUNDLE)
    return Pipeline(bundle, resolve_labels(["walking", "sitting", "lying"], bundle))


@pytest.fixture(scope="module", params=URIS)
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Session:
    pytest.importorskip("pyarrow")
    from edge.raw import Recorder

    uri, said, parts = str(request.param), list[str](), list[Samples]()
    path = tmp_path_factory.mktemp("hardware") / "raw.parquet"
    live, predictions = pipeline(), list[Prediction]()
    with opened(uri, said) as (device, source):
        recorder = Recorder(path, device.name, lambda: source.report().details, said.append)
        for samples in recorder.passing(device.samples):
            parts.append(samples)
            predictions += live.push(samples)
            if samples.t_s[-1] >= STREAM_S:
                source.close()  # what it has brought still comes
        report = source.report()
    predictions += live.finish()
    recorder.close()
    assert parts, f"nothing came of {uri}; it said: {said}"
    return Session(uri, Samples.joined(parts), predictions, report, said, path)


def test_the_rate_is_steady_and_as_reported(session: Session) -> None:
    steps_s = np.diff(session.samples.t_s)
    assert session.samples.t_s[-1] >= STREAM_S and (steps_s > 0).all()
    rate_hz = session.clock.rate_hz
    assert rate_hz is not None and 10 <= rate_hz <= 1000
    assert 1 / np.median(steps_s) == pytest.approx(rate_hz, rel=0.03)


def test_at_rest_it_measures_gravity_and_no_turning(session: Session) -> None:
    """A wrong scale or unit shows here: sensors are off by a few percent at most."""
    g = float(np.linalg.norm(np.median(session.samples.acc_mps2, axis=0)))
    assert g == pytest.approx(STANDARD_GRAVITY_MPS2, rel=0.06)
    if session.samples.gyro_rads is not None:
        # Zero-rate offsets of consumer gyroscopes are a few deg/s (0.05 rad/s).
        assert float(np.abs(np.median(session.samples.gyro_rads, axis=0)).max()) < 0.15


def test_the_clocks_report_is_that_of_a_sound_link(session: Session) -> None:
    clock = session.clock
    print("\n".join([session.uri, *session.report.lines()]))  # to be seen with -s
    assert clock.samples == pytest.approx(len(session.samples), rel=0.2)
    assert clock.resets == 0 and clock.lost_fraction < 0.1 and clock.lag_p95_s < 1.0
    assert clock.drift_ppm is None or abs(clock.drift_ppm) < 1000
    assert session.report.reconnects == session.report.stalls == session.report.skipped == 0


def test_it_was_told_to_stop_and_starts_again(session: Session) -> None:
    assert not [t for t in threading.enumerate() if t.name == "link"]
    if session.uri.startswith("ble"):
        assert any(line.endswith(": told to stop") for line in session.said), session.said
    said: list[str] = []
    with opened(session.uri, said) as (device, _):
        first = next(device.samples, None)
    assert first is not None and len(first), said


def test_its_recording_gives_the_labels_of_the_live_run(session: Session) -> None:
    again = pipeline()
    replayed = [p for c in open_recording(session.recording).chunks for p in again.push(c)]
    replayed += again.finish()
    assert any(p.best is not None for p in session.predictions)
    assert [(p.start_s, p.label) for p in replayed] == [
        (p.start_s, p.label) for p in session.predictions
    ]
