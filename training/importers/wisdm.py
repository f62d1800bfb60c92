"""WISDM Smartphone and Smartwatch Activity and Biometrics Dataset (2019).

Source: https://archive.ics.uci.edu/dataset/507 (wisdm-dataset.zip).
Files: raw/DEVICE/SENSOR/data_SUBJECT_SENSOR_DEVICE.txt with DEVICE phone or watch and SENSOR accel
    or gyro (raw/phone/accel/data_1600_accel_phone.txt); lines `subject,letter,time in ns,x,y,z;`.
Units: m/s^2 with gravity, rad/s (Android); 20 Hz nominally.
Axes: Android's; face up at rest reads +9.8 on z.
Licence: CC BY 4.0 (UCI page, not verified).
Traps: accelerometer and gyroscope are sampled each at its own times, and of some devices their
    clocks have nothing in common: such pairs are left out. Stamps repeat and jump; some devices
    ran faster than 20 Hz, so the rate is measured. activity_key.txt has no N.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.corpus import Segment
from edge.resample import MAX_BACKWARD_S, MAX_GAP_S
from firmware_bridge.samples import TIME_UNITS_S
from training.importers.form import (
    RATES_HZ,
    Dataset,
    Recording,
    Skipped,
    csv_columns,
    labels_of,
    pieces,
)

_PLACEMENTS = {"phone": "trouser pocket", "watch": "wrist"}
_LABELS = {
    "A": "walking",
    "B": "jogging",
    "C": "walking up and down stairs",
    "D": "sitting",
    "E": "standing",
    "F": "typing",
    "G": "brushing teeth",
    "H": "eating soup",
    "I": "eating chips",
    "J": "eating pasta",
    "K": "drinking from a cup",
    "L": "eating a sandwich",
    "M": "kicking a soccer ball",
    "O": "playing catch with a tennis ball",
    "P": "dribbling a basketball",
    "Q": "writing",
    "R": "clapping",
    "S": "folding clothes",
}
_COLUMNS = {"subject": str, "letter": str, "ns": int, "x": float, "y": float, "z": float}


def read(src: Path, skipped: Skipped) -> Iterator[Recording]:
    """One recording for each device, activity and stretch without a gap."""
    for device, placement in _PLACEMENTS.items():
        for path in sorted(src.rglob(f"data_*_accel_{device}.txt")):
            gyro_path = path.parents[1] / "gyro" / path.name.replace("_accel_", "_gyro_")
            if not gyro_path.exists():
                skipped.note(path, "accelerometer without a gyroscope's file")
                continue
            acc, gyro = _sensor(path), _sensor(gyro_path)
            rate_hz = _rate_hz(acc["ns"])
            if rate_hz < RATES_HZ[0]:
                skipped.note(path, f"device slower than {RATES_HZ[0]:g} Hz")
                continue
            subject = path.name.split("_")[1]
            for letter in dict.fromkeys(acc["letter"]):
                own = [_of_letter(s, letter) for s in (acc, gyro)]
                if any(_runs_backwards(ns) for ns, _ in own):
                    skipped.note(path, "activity whose time stamps run backwards")
                    continue
                (acc_ns, acc_xyz), (gyro_ns, gyro_xyz) = own
                zero = acc_ns[0]  # integers first: stamps since 1970 are beyond float64's digits
                acc_s, gyro_s = ((ns - zero) * TIME_UNITS_S["ns"] for ns in (acc_ns, gyro_ns))
                found = pieces(acc_s, acc_xyz, gyro_xyz, rate_hz, gyro_t_s=gyro_s)
                if not found:
                    skipped.note(path, "activity without a time that both sensors measured")
                for piece in found:
                    yield Recording(
                        subject=subject,
                        session=letter,
                        placement=placement,
                        rate_hz=rate_hz,
                        acc_mps2=piece.acc_mps2,
                        gyro_rads=piece.gyro_rads,
                        segments=(Segment(0, len(piece), _LABELS[letter]),),
                        source=path,
                    )


def _sensor(path: Path) -> dict[str, NDArray[Any]]:
    """A file's columns."""
    columns = csv_columns(path, _COLUMNS, header=False, data=path.read_bytes().replace(b";", b""))
    labels_of(path, columns["letter"], _LABELS)
    return columns


def _of_letter(
    sensor: dict[str, NDArray[Any]], letter: str
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(N,) stamps and (N, 3) values of an activity; of equal stamps the first."""
    rows = np.flatnonzero(sensor["letter"] == letter)
    first = np.sort(np.unique(sensor["ns"][rows], return_index=True)[1])
    rows = rows[first]
    return sensor["ns"][rows], np.stack([sensor[axis][rows] for axis in "xyz"], axis=1)


def _runs_backwards(ns: NDArray[np.int64]) -> bool:
    """Stamps that come late by more than a little are another clock's."""
    late = np.maximum.accumulate(ns) - ns
    return bool(late.max(initial=0) * TIME_UNITS_S["ns"] > MAX_BACKWARD_S)


def _rate_hz(ns: NDArray[np.int64]) -> float:
    """Whole Hz, from the intervals that are no gaps."""
    interval_s = np.diff(np.unique(ns)).astype(np.float64) * TIME_UNITS_S["ns"]
    interval_s = interval_s[interval_s <= MAX_GAP_S]
    return float(round(1 / interval_s.mean())) if len(interval_s) else 20.0


DATASET = Dataset(
    name="wisdm",
    title="WISDM 2019 (wrist watch and trouser pocket phone; 51 subjects, 18 activities)",
    cite="Weiss et al., IEEE Access 7, 2019",
    licence="UCI, believed CC BY 4.0 (not verified)",
    units="m/s^2 with gravity and rad/s (Android), taken as they are",
    note="20 Hz nominally, measured for each device; cut at gaps above 0.25 s",
    read=read,
)
