"""Signals, files and corpora that the tests make themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.spec import CHANNELS
from firmware_bridge.samples import STANDARD_GRAVITY_MPS2, Samples

REPO = Path(__file__).parent.parent
RECORDING = REPO / "edge" / "data" / "recording" / "walkthrough.csv"
TRUTH = REPO / "edge" / "data" / "recording" / "walkthrough_truth.csv"


def walk(duration_s: float, rate_hz: float, jitter: float = 0.0, seed: int = 0) -> Samples:
    """A walk at 1.8 steps a second: gravity on z, steps on all axes, sensor noise."""
    rng = np.random.default_rng(seed)
    n = round(duration_s * rate_hz)
    t = (np.arange(n) + rng.uniform(-jitter, jitter, n)) / rate_hz
    phase = 2 * np.pi * 1.8 * t
    acc = np.stack([np.sin(phase / 2), 0.5 * np.cos(phase), 2.5 * np.sin(phase)], axis=1)
    acc[:, 2] += STANDARD_GRAVITY_MPS2
    gyro = np.stack([np.cos(phase / 2), 0.3 * np.sin(phase), 0.1 * np.cos(phase)], axis=1)
    return Samples(t, acc + rng.normal(0, 0.1, (n, 3)), gyro + rng.normal(0, 0.02, (n, 3)))


def without(samples: Samples, start_s: float, end_s: float) -> Samples:
    """The samples with a hole in time."""
    keep = (samples.t_s < start_s) | (samples.t_s >= end_s)
    assert samples.gyro_rads is not None
    return Samples(samples.t_s[keep], samples.acc_mps2[keep], samples.gyro_rads[keep])


def write_csv(path: Path, header: str, rows: np.ndarray) -> Path:
    """A CSV with a header line."""
    np.savetxt(path, rows, delimiter=",", header=header, comments="", fmt="%.6g")
    return path


BANK_POSTURES = {
    "walking": "upright",
    "standing": "upright",
    "sitting": "sitting",
    "lying": "lying",
}
"""What `with_decision` has the bank claim; its other activities claim no posture."""


def decision_record(rows: list[int]) -> dict[str, Any]:
    """A decision as a manifest holds it. The face angle and the tilt say opposite things of a
    trunk, and nothing where the placement is not known."""
    flat = [[0.25] * 4] * 3
    low, middle, high = [0.85, 0.05, 0.05, 0.05], [0.1, 0.4, 0.4, 0.1], [0.05, 0.05, 0.05, 0.85]
    level = [0.05, 0.05, 0.85, 0.05]
    others = {segment: flat for segment in ("arm", "shank", "unknown")}
    return {
        "vocabulary": {"rows": rows, "logit_scale": 20.0},
        "bridge": {"weight": 0.3, "temperature": 0.05},
        "posture": {
            "weight": 2.0,
            "postures": ["upright", "sitting", "lying"],
            "face_edges_deg": [0, 20, 45, 70, 90],
            "tilt_edges_deg": [0, 30, 60, 120, 180],
            "face": {"trunk": [low, low, high], "thigh": [low, middle, high], **others},
            "tilt": {"trunk": [low, low, level], "thigh": [low, middle, level], **others},
        },
        "temperature": 1.5,
    }


def with_decision(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest that decides by `decision_record`, trained on a third of its bank."""
    bank = [{k: v for k, v in a.items() if k != "posture"} for a in manifest["label_bank"]]
    for activity in bank:
        if activity["name"] in BANK_POSTURES:
            activity["posture"] = BANK_POSTURES[activity["name"]]
    rows = list(range(0, len(bank), 3))
    return {
        **manifest,
        "format_version": 2,
        "label_bank": bank,
        "decision": decision_record(rows),
    }


@pytest.fixture
def walk_csv(tmp_path: Path) -> Path:
    """20 s of walking at 50 Hz in SI units, named columns."""
    s = walk(20, 50)
    assert s.gyro_rads is not None
    rows = np.column_stack([s.t_s, s.acc_mps2, s.gyro_rads])
    header = "time_s,ax_mps2,ay_mps2,az_mps2,gx_rads,gy_rads,gz_rads"
    return write_csv(tmp_path / "walk.csv", header, rows)


def write_corpus(
    folder: Path, role: str = "train", n_subjects: int = 3, n_sessions: int = 1
) -> Path:
    """A corpus in the shared form: each subject walks 12 s and lies still 8 s, 3 s unlabelled
    between them, at 50 Hz."""
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table
    rate_hz, acc_step, gyro_step = 50.0, 0.01, 0.002
    counts, recordings, segments = [], [], []
    for number in range(n_subjects * n_sessions):
        subject, session = number % n_subjects, number // n_subjects
        moving = walk(15, rate_hz, seed=number)
        assert moving.gyro_rads is not None
        still = np.random.default_rng(number).normal(0, 0.02, (400, 6))
        still[:, 0] += STANDARD_GRAVITY_MPS2
        imu = np.vstack([np.hstack([moving.acc_mps2, moving.gyro_rads]), still])
        counts.append(np.round(imu / ([acc_step] * 3 + [gyro_step] * 3)).astype(np.int16))
        offset = sum(map(len, counts[:-1]))
        recordings.append(
            (number, f"s{subject}", f"day{session}", "waist", rate_hz, offset, len(imu))
        )
        segments += [(number, 0, 600, "walking"), (number, 750, 1150, "lying")]
    folder.mkdir(parents=True)
    samples = dict(zip(CHANNELS, np.vstack(counts).T, strict=True))
    parquet.write_table(table(samples), folder / "samples.parquet")
    for stem, columns, rows in (
        ("recordings", "recording subject session placement rate_hz offset length", recordings),
        ("segments", "recording start stop label", segments),
    ):
        values = dict(zip(columns.split(), map(list, zip(*rows, strict=True)), strict=True))
        parquet.write_table(table(values), folder / f"{stem}.parquet")
    info = {"name": folder.name, "role": role, "acc_step": acc_step, "gyro_step": gyro_step}
    (folder / "corpus.json").write_text(json.dumps(info))
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A small training corpus."""
    return write_corpus(tmp_path / "mini")
