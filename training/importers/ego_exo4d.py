"""Ego-Exo4D: Aria glasses on people cooking, climbing, playing; with sentences about it.

Source: https://ego-exo4d-data.org (Grauman et al., CVPR 2024), downloaded with the licence of your
    own: `egoexo -o DIR --parts metadata annotations captures take_vrs_noimagestream`.
Files, as https://docs.ego-exo4d-data.org describes it: `takes.json` (take_name, take_uid,
    root_dir, participant_uid, parent_task_name, task_start_sec, task_end_sec,
    timesync_start_idx), `captures/CAPTURE/timesync.csv`, `annotations/atomic_descriptions_*.json`,
    `annotations/expert_commentary_*.json`, each for train and val.
    The IMU is not published outside of the VRS files
    (https://github.com/facebookresearch/Ego4d/issues/355). Write it first, with
    projectaria_tools, to `takes/TAKE/imu-right.csv` or `.parquet` (or imu-left; the right one is
    preferred): one line for each `get_imu_data_by_index` of the stream labelled "imu-right",
    timestamp_ns (capture_timestamp_ns), accel_x..z (accel_msec2), gyro_x..z (gyro_radsec).
Units: m/s^2 with gravity and rad/s, 1000 Hz (imu-right) and 800 Hz (imu-left): brought to the
    runtime's 200 Hz by the runtime's own low-pass.
Axes: the IMU's. Taken as they are.
Licence: Ego-Exo4D License Agreement; no redistribution.
Traps: stamps are the device's; a take begins at the capture time in line timesync_start_idx + 1 of
    the capture's timesync.csv. Without that file the take is taken to begin with its IMU, noted. A
    label is the task's scenario, from task_start_sec to task_end_sec (before and after it QR codes
    are shown). "C" in a text is the wearer; descriptions of others (subject "O") and rejected
    annotations are left out. Descriptions are within 1 to 2 s of what they describe, so 5 s around
    the stamp; experts speak of what they have just seen, so the 5 s before it. Body poses
    (`annotations/ego_pose/*/body/annotation/TAKE_UID.json`) are no part of this form: noted only.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from edge.resample import Resampler
from edge.spec import SIGNAL
from firmware_bridge.errors import InputError
from firmware_bridge.samples import TIME_UNITS_S, Samples
from training.importers.ego import Sentence, about_wearer, around, before, published_form, texts_on
from training.importers.form import (
    Dataset,
    Piece,
    Recording,
    Segment,
    Skipped,
    csv_columns,
    pieces,
)

_STAMP = "timestamp_ns"
_ACC, _GYRO = ("accel_x", "accel_y", "accel_z"), ("gyro_x", "gyro_y", "gyro_z")
_COLUMNS: dict[str, type] = {_STAMP: int, **dict.fromkeys((*_ACC, *_GYRO), float)}
_FILES = ("imu-right.csv", "imu-right.parquet", "imu-left.csv", "imu-left.parquet")
_SPLITS = ("train", "val")
_TAKE = (
    "take_name",
    "take_uid",
    "root_dir",
    "participant_uid",
    "parent_task_name",
    "task_start_sec",
    "task_end_sec",
    "timesync_start_idx",
)

_DECIMATE_ABOVE_HZ = 500.0

_LABELS = {"music": "playing music"}
"""Scenarios that need other words; the rest is taken as it is, in lower case."""


def read(src: Path, skipped: Skipped) -> Iterator[Recording]:
    """One recording for each take and stretch without a gap."""
    with published_form(src / "takes.json") as content:
        takes = [{key: take[key] for key in _TAKE} for take in content]
    sentences = _sentences(src, skipped)
    for take in takes:
        folder = src / take["root_dir"]
        path = next((folder / name for name in _FILES if (folder / name).exists()), None)
        if path is None:
            skipped.note(folder, "take without imu-right.csv, .parquet or imu-left")
            continue
        for split in _SPLITS:
            pose = src.joinpath(
                "annotations", "ego_pose", split, "body", "annotation", f"{take['take_uid']}.json"
            )
            if pose.exists():
                skipped.note(pose, "body pose of a take, no part of this form")
        stamps_ns, acc, gyro = _signal(path)
        if len(stamps_ns) < 2:
            skipped.note(path, "IMU file without samples")
            continue
        start_ns = _start_ns(src, take, stamps_ns, skipped)
        t_s = (stamps_ns - start_ns).astype(np.float64) * TIME_UNITS_S["ns"]
        found, rate_hz = _pieces(path, t_s, acc, gyro, skipped)
        grids = [(piece.start_s, len(piece)) for piece in found]
        texts = texts_on(sentences[take["take_uid"]], grids, rate_hz, path, skipped)
        for piece, spoken in zip(found, texts, strict=True):
            yield Recording(
                subject=str(take["participant_uid"]),
                session=take["take_name"],
                placement="head",
                rate_hz=rate_hz,
                acc_mps2=piece.acc_mps2,
                gyro_rads=piece.gyro_rads,
                segments=_segments(take, piece, rate_hz),
                source=path,
                texts=spoken,
            )


def _signal(
    path: Path,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """(N,) stamps in ns, (N, 3) accelerations, (N, 3) turn rates."""
    if path.suffix == ".csv":
        columns = csv_columns(path, _COLUMNS)
    else:
        try:
            found = parquet.read_table(path)
        except pa.ArrowInvalid as error:
            raise InputError(f"{path}: not a Parquet file ({error})") from None
        absent = [name for name in _COLUMNS if name not in found.column_names]
        if absent:
            raise InputError(f"{path}: no column {', '.join(absent)}; found: {found.column_names}")
        columns = {name: found[name].to_numpy() for name in _COLUMNS}
    acc, gyro = (np.stack([columns[c] for c in names], axis=1) for names in (_ACC, _GYRO))
    return columns[_STAMP], acc, gyro


def _start_ns(
    src: Path, take: Mapping[str, Any], stamps_ns: NDArray[np.int64], skipped: Skipped
) -> int:
    """When a take begins, by the device's clock."""
    capture = re.sub(r"_\d+$", "", take["take_name"])
    path = src / "captures" / capture / "timesync.csv"
    if not path.exists():
        skipped.note(path, "timesync.csv missing, take timed from the IMU's first sample")
        return int(stamps_ns[0])
    lines = path.read_text(encoding="utf-8").splitlines()
    header = lines[0].split(",")
    row = 1 + take["timesync_start_idx"] + 1  # after the header; the docs' own + 1
    stamp = [i for i, c in enumerate(header) if re.fullmatch(r"aria\d+_214-1_capture_\w+_ns", c)]
    if len(stamp) != 1 or row >= len(lines):
        raise InputError(
            f"{path}: no line {row + 1}, or not one column ariaNN_214-1_capture_timestamp_ns"
        )
    try:
        return int(float(lines[row].split(",")[stamp[0]]))
    except (IndexError, ValueError):
        raise InputError(f"{path}:{row + 1}: no capture time of the Aria glasses") from None


def _pieces(
    path: Path,
    t_s: NDArray[np.float64],
    acc: NDArray[np.float64],
    gyro: NDArray[np.float64],
    skipped: Skipped,
) -> tuple[list[Piece], float]:
    """The signal without its gaps, and its rate: above 500 Hz, the runtime's."""
    rate_hz = 1 / float(np.median(np.diff(t_s)))
    if rate_hz <= _DECIMATE_ABOVE_HZ:
        return pieces(t_s, acc, gyro, float(round(rate_hz))), float(round(rate_hz))
    resampler = Resampler()
    try:
        blocks = resampler.push(Samples(t_s, acc, gyro)) + resampler.finish()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    for what, n in (
        ("sample not later than the one before", resampler.dropped.not_later),
        ("sample without a number", resampler.dropped.not_finite),
    ):
        if n:
            skipped.note(path, what, n)
    # Blocks that touch are one stretch, cut where the stream ended and not at a gap.
    breaks = [i for i in range(1, len(blocks)) if blocks[i].start_index > blocks[i - 1].stop_index]
    found = []
    for first, last in pairwise([0, *breaks, len(blocks)] if blocks else []):
        values = np.concatenate([b.values for b in blocks[first:last]]).astype(np.float64)
        start_s = resampler.time_of(blocks[first].start_index)
        found.append(Piece(start_s, values[:, :3], values[:, 3:]))
    return found, float(SIGNAL.rate_hz)


def _segments(take: Mapping[str, Any], piece: Piece, rate_hz: float) -> tuple[Segment, ...]:
    scenario = (take["parent_task_name"] or "").lower()
    start_s, stop_s = take["task_start_sec"], take["task_end_sec"]
    start = 0 if start_s is None else max(0, round((start_s - piece.start_s) * rate_hz))
    stop = len(piece)
    if stop_s is not None:
        stop = min(stop, round((stop_s - piece.start_s) * rate_hz))
    if not scenario or start >= stop:
        return ()
    return (Segment(start, stop, _LABELS.get(scenario, scenario)),)


def _sentences(src: Path, skipped: Skipped) -> dict[str, list[Sentence]]:
    """take_uid -> what was written about it, in s from the take's start."""
    found: dict[str, list[Sentence]] = defaultdict(list)
    for split in _SPLITS:
        for name, sentences_of in (
            ("atomic_descriptions", _descriptions),
            ("expert_commentary", _commentaries),
        ):
            path = src / "annotations" / f"{name}_{split}.json"
            if not path.exists():
                skipped.note(path, "file of texts, missing")
                continue
            with published_form(path) as content:
                for take_uid, annotated in content["annotations"].items():
                    for annotation in annotated:
                        found[take_uid] += sentences_of(path, annotation, skipped)
    return found


def _descriptions(path: Path, annotation: Mapping[str, Any], skipped: Skipped) -> list[Sentence]:
    entries = annotation["descriptions"]
    if annotation.get("rejected"):
        skipped.note(path, "atomic description of a rejected annotation", len(entries))
        return []
    found = []
    for entry in entries:
        # The docs' text says "subject", their sample "narration_subject".
        subject = entry.get("subject", entry.get("narration_subject"))
        if subject not in ("C", None) or not entry["text"]:
            skipped.note(path, "atomic description of someone else, or empty")
        else:
            text = about_wearer(entry["text"])
            found.append(around(float(entry["timestamp"]), text, "atomic description"))
    return found


def _commentaries(path: Path, annotation: Mapping[str, Any], skipped: Skipped) -> list[Sentence]:
    found = []
    for entry in annotation["commentary_data"]:
        text = (entry.get("text") or "").strip()
        if entry.get("error") or not text:
            skipped.note(path, "expert commentary without a transcription")
        else:
            found.append(before(float(entry["video_time"]), text, "expert commentary"))
    return found


DATASET = Dataset(
    name="ego_exo4d",
    title="Ego-Exo4D (Aria glasses; skilled activities, with descriptions and commentaries)",
    cite="Grauman et al., CVPR 2024",
    licence="Ego-Exo4D License Agreement; no redistribution",
    units="m/s^2 and rad/s as they are; gravity included; the IMU's axes",
    read=read,
    note="200 Hz, low-passed from 1000 Hz; labels are scenarios of whole takes; texts are 5 s "
    "around each atomic description and 5 s before each expert commentary",
)
