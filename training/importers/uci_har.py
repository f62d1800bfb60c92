"""Human Activity Recognition Using Smartphones (UCI HAR): windows, joined to recordings again.

Source: https://archive.ics.uci.edu/dataset/240 (UCI HAR Dataset.zip).
Files: train/ and test/, each with subject_SPLIT.txt and y_SPLIT.txt (a window a line) and
    Inertial Signals/total_acc_[xyz]_SPLIT.txt and body_gyro_[xyz]_SPLIT.txt (128 columns
    separated by blanks: a window of 2.56 s, half of it shared with the next).
Units: g with gravity (total_acc), rad/s; 50 Hz.
Axes: a Samsung Galaxy S II at the waist; a device at rest reads +1 g upwards.
Licence: its README allows no commercial use; the UCI page says CC BY 4.0.
Traps: body_acc has no gravity and is not used. Neighbouring lines need not overlap: windows are
    joined only where the shared half is the same. The signals were low-passed at 20 Hz. The
    people are HAPT's, whose raw sessions are the better source. Scored on only, never trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from firmware_bridge.errors import InputError
from firmware_bridge.samples import STANDARD_GRAVITY_MPS2
from training.importers import hapt
from training.importers.form import Dataset, Recording, Skipped, labels_of, runs_of, table

_RATE_HZ = 50.0
_WINDOW, _HOP = 128, 64
_SIGNALS = [f"{sensor}_{axis}" for sensor in ("total_acc", "body_gyro") for axis in "xyz"]
_LABELS = {code: name for code, name in hapt.LABELS.items() if code <= 6}
_SAME = 1e-6
"""g and rad/s: the files hold seven digits."""


def read(src: Path, skipped: Skipped) -> Iterator[Recording]:
    """One recording for each chain of windows that overlap."""
    for subject_path in sorted(src.rglob("subject_t*.txt")):
        split = subject_path.stem.removeprefix("subject_")
        folder = subject_path.parent / "Inertial Signals"
        paths = [folder / f"{name}_{split}.txt" for name in _SIGNALS]
        signals = [table(path, _WINDOW) for path in paths]
        label_path = subject_path.with_name(f"y_{split}.txt")
        subjects = table(subject_path, 1)[:, 0].astype(int)
        names = np.array(labels_of(label_path, table(label_path, 1)[:, 0], _LABELS))
        counts = [len(x) for x in (subjects, names, *signals)]
        if len(set(counts)) > 1:
            files = ", ".join(path.name for path in (subject_path, label_path, *paths))
            raise InputError(
                f"{subject_path.parent}: {counts} lines in {files}; expected as many in each: "
                "one for each window"
            )
        windows = np.stack(signals, axis=2)
        shared = np.abs(windows[1:, :_HOP] - windows[:-1, _HOP:]).max(axis=(1, 2)) < _SAME
        chained = shared & (subjects[1:] == subjects[:-1])
        for chain in np.split(np.arange(len(windows)), np.flatnonzero(~chained) + 1):
            imu = np.concatenate([windows[chain[0], :_HOP], *windows[chain, _HOP:]])
            # The first half of the chain is in its first window only, each further half in two
            # windows: where these have different labels, nobody knows.
            own = names[chain].tolist()
            around = zip([own[0], *own], [*own, own[-1]], strict=True)
            halves = [first if first == second else None for first, second in around]
            yield Recording(
                subject=f"{subjects[chain[0]]:02d}",
                session=f"{split} window {chain[0] + 1}",
                placement="waist",
                rate_hz=_RATE_HZ,
                acc_mps2=imu[:, :3] * STANDARD_GRAVITY_MPS2,
                gyro_rads=imu[:, 3:],
                segments=runs_of([half for half in halves for _ in range(_HOP)]),
                source=paths[0],
            )


DATASET = Dataset(
    name="uci_har",
    title="UCI HAR windows joined again (waist phone; 30 subjects, 6 activities)",
    cite="Anguita et al., ESANN 2013",
    licence="its own README: no commercial use; UCI page CC BY 4.0",
    units="g with gravity (total_acc), times 9.80665; rad/s, taken as they are",
    role="benchmark",
    note="50 Hz, low-passed at 20 Hz by its makers; HAPT's subjects: use one of the two",
    read=read,
)
