"""Ego4D: head-worn cameras with an IMU, and narrations of what the wearer does.

Source: https://ego4d-data.org (Grauman et al., CVPR 2022), downloaded with the licence of your own:
    `ego4d -o DIR --datasets imu annotations --version v2`.
Files, as https://ego4d-data.org/docs/data/imu describes it: `ego4d.json` (videos: video_uid,
    duration_sec, scenarios, fb_participant_id), `v2/imu/VIDEO_UID.csv` with the columns
    component_idx, component_timestamp_ms, canonical_timestamp_ms, gyro_x..z, accl_x..z, about
    200 Hz, and `v2/annotations/narration.json` (video_uid -> narration_pass_1 and _2 ->
    narrations: timestamp_sec, narration_text).
Units: m/s^2 with gravity and rad/s (believed, the page does not say it); uncalibrated. A video
    whose accelerometer does not show gravity is left out.
Axes: the camera's, which differ by maker. Taken as they are.
Licence: Ego4D License Agreement; no redistribution.
Traps: the page tells of missing accelerations, of stamps far too large or small, and of packets
    out of order ("sort by the canonical timestamp"); canonical stamps are NULL outside of the
    video. Stamps may overlap after sorting; then signal and video part by up to 1 s
    (https://github.com/facebookresearch/Ego4d/issues/158), and the video is left out. IMUs may
    cover a part of a video only, or nothing ("BAD IMU",
    https://github.com/facebookresearch/imu2clip/issues/4). The page's own sample repeats accl_y in
    accl_z: such files are left out. Texts: "#C C picks up a cup" is about the wearer; "#O" is
    about someone else, "#unsure" unsure, both left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.samples import TIME_UNITS_S
from training.importers.ego import Sentence, about_wearer, around, published_form, texts_on
from training.importers.form import (
    RATES_HZ,
    Dataset,
    Recording,
    Segment,
    Skipped,
    csv_columns,
    pieces,
)

_VIDEO = ("duration_sec", "scenarios", "fb_participant_id")
_STAMP = "canonical_timestamp_ms"
_ACC, _GYRO = ("accl_x", "accl_y", "accl_z"), ("gyro_x", "gyro_y", "gyro_z")

_REST_MPS2 = (8.3, 11.3)
_MAX_OVERLAPPING = 0.01
"""Fraction of sample intervals under half the usual one."""

_LABELS = {
    "BasketBall": "playing basketball",
    "Bike mechanic": "repairing a bicycle",
    "Car mechanic": "repairing a car",
    "Carpenter": "carpentry",
    "Cleaning / laundry": "house cleaning",
    "Clothes, other shopping": "shopping for clothes",
    "Crafting/knitting/sewing/drawing/painting": "doing crafts",
    "Doing yardwork / shoveling snow": "yard work",
    "Farmer": "farm work",
    "Grocery shopping indoors": "grocery shopping",
    "Practicing a musical instrument": "playing an instrument",
    "Walking on street": "walking",
    "Yoga practice": "yoga",
}
"""Scenarios in the bank's words; others are taken as they are, in lower case."""

_CONSTRUCTION = "jobs related to construction"
"""The beginning of a scenario whose name goes on over a page."""


def read(src: Path, skipped: Skipped) -> Iterator[Recording]:
    """One recording for each video and stretch without a gap."""
    with published_form(src / "ego4d.json") as content:
        videos = {v["video_uid"]: {key: v[key] for key in _VIDEO} for v in content["videos"]}
    with published_form(src / "v2" / "annotations" / "narration.json") as content:
        sentences = {uid: _sentences(narration) for uid, narration in content.items()}
    for path in sorted((src / "v2" / "imu").glob("*.csv")):
        video = videos.get(path.stem)
        if video is None:
            skipped.note(path, "video that ego4d.json does not know")
            continue
        t_s, acc, gyro, step_s = _signal(path, float(video["duration_sec"]), skipped)
        fault = _fault(t_s, acc, step_s)
        if fault:
            skipped.note(path, f"video with {fault}")
            continue
        # Makers differ by some Hz (GoPro about 198); between whole numbers nothing is lost.
        rate_hz = float(round(1 / step_s))
        found = pieces(t_s, acc, gyro, rate_hz)
        spoken, others = sentences.get(path.stem, ([], 0))
        if others:
            skipped.note(path, "narration about someone else, or unsure", others)
        grids = [(piece.start_s, len(piece)) for piece in found]
        texts = texts_on(spoken, grids, rate_hz, path, skipped)
        label = _label(video["scenarios"] or [])
        for piece, own in zip(found, texts, strict=True):
            yield Recording(
                subject=str(video["fb_participant_id"] or path.stem),
                session=path.stem,
                placement="head",
                rate_hz=rate_hz,
                acc_mps2=piece.acc_mps2,
                gyro_rads=piece.gyro_rads,
                segments=(Segment(0, len(piece), label),) if label else (),
                source=path,
                texts=own,
            )


def _signal(
    path: Path, duration_s: float, skipped: Skipped
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], float]:
    """(N,) times in the video in s, ascending; (N, 3) accelerations; (N, 3) turn rates; and the
    usual sample interval in s, 0 if there is none."""
    data = path.read_bytes().replace(b"NULL", b"")
    for _ in range(2):  # an empty field is a missing value; twice for two in a row
        data = data.replace(b",,", b",nan,")
    columns = csv_columns(path, dict.fromkeys((_STAMP, *_ACC, *_GYRO), float), data=data)
    t_s = columns[_STAMP] * TIME_UNITS_S["ms"]
    inside = (t_s >= 0) & (t_s <= duration_s)  # False for NaN too
    if not inside.all():
        skipped.note(path, "sample outside of the video", int((~inside).sum()))
    steps_s = np.diff(t_s[inside])  # in file order: after sorting, overlaps would halve them
    usual_s = float(np.median(steps_s[steps_s > 0])) if (steps_s > 0).any() else 0.0
    order = np.flatnonzero(inside)[np.argsort(t_s[inside], kind="stable")]
    acc, gyro = (np.stack([columns[c][order] for c in names], axis=1) for names in (_ACC, _GYRO))
    return t_s[order], acc, gyro, usual_s


def _fault(t_s: NDArray[np.float64], acc: NDArray[np.float64], step_s: float) -> str:
    """What makes a video's IMU useless, or ""."""
    measured = np.isfinite(acc).all(axis=1)
    if not measured.any():
        return "no acceleration"
    if not 1 / RATES_HZ[1] <= step_s <= 1 / RATES_HZ[0]:
        return "an impossible rate"
    for one, other in ((0, 1), (0, 2), (1, 2)):
        if np.array_equal(acc[measured, one], acc[measured, other]):
            return "two equal axes of acceleration"
    if (np.diff(t_s) < step_s / 2).mean() > _MAX_OVERLAPPING:
        return "overlapping stamps"
    usual_mps2 = float(np.median(np.sqrt((acc[measured] ** 2).sum(axis=1))))
    if not _REST_MPS2[0] <= usual_mps2 <= _REST_MPS2[1]:
        return "an accelerometer that does not show gravity"
    return ""


def _label(scenarios: list[str]) -> str | None:
    if len(scenarios) != 1:
        return None
    if scenarios[0].startswith(_CONSTRUCTION):
        return "construction work"
    return _LABELS.get(scenarios[0], scenarios[0].lower())


def _sentences(narration: dict[str, Any]) -> tuple[list[Sentence], int]:
    """The narrations of both passes about the wearer, and how many are not."""
    found, others = [], 0
    for part in ("narration_pass_1", "narration_pass_2"):
        for entry in narration.get(part, {}).get("narrations", []):
            text = plain_narration(entry["narration_text"])
            if text is None:
                others += 1
            else:
                found.append(around(float(entry["timestamp_sec"]), text, "narration"))
    return found, others


def plain_narration(text: str) -> str | None:
    """ "#C C picks up a cup" -> "a person picks up a cup"; None if it is not about the wearer."""
    named = re.fullmatch(r"#\s*[cC]\b\s*(?:[cC]\b(?!'))?\s*(.*)", text.strip(), re.DOTALL)
    if named is None or not named[1] or "#" in named[1]:
        return None
    return about_wearer(f"C {named[1]}")


DATASET = Dataset(
    name="ego4d",
    title="Ego4D (head-worn cameras with IMU, narrations)",
    cite="Grauman et al., CVPR 2022",
    licence="Ego4D License Agreement; no redistribution",
    units="m/s^2 and rad/s as they are (believed); gravity included; the camera's axes",
    read=read,
    note="labels are scenarios of whole videos, where there is exactly one; texts are 5 s around "
    "each narration; signal and video may part by up to 1 s",
)
