"""What gravity says of the wearer's posture: upright, sitting or lying.

The encoder is invariant to how the device is turned, so postures look alike to it. Two angles of
a window's mean acceleration do tell them apart:

* the face angle, how far the device's flat face is tipped from vertical (0 to 90 degrees). Flat
  against a body that stands or walks it is small wherever the device is worn.
* the tilt, from the wearer's own upright direction (0 to 180 degrees), where walking has shown
  which way that is (`edge/upright.py`).

What an angle means depends on the body segment the device is worn on: a thigh is level in a
sitting wearer, a trunk is not. A bundle's tables hold how likely each angle is.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.spec import SIGNAL
from edge.upright import Vector, steady_direction
from firmware_bridge.errors import InputError

POSTURES = ("upright", "sitting", "lying")
UNKNOWN = "unknown"
SEGMENTS = ("trunk", "thigh", "arm", "shank", UNKNOWN)
"""Body segments that a device is worn on."""

STEADY_DEG = 25.0
"""A second's mean may point this far from its window's: a body that changes its posture, or a
device that is handled, has none."""

_PIECE = SIGNAL.rate_hz
_ONES = np.ones(_PIECE, np.float32)  # sums as products: several times faster than `sum`

_WORDS = (
    ("trunk", "shirt pocket|jacket pocket|coat pocket|breast pocket|vest pocket"),
    ("thigh", "upper leg|trouser pocket|trousers pocket|back pocket"),
    ("shank", "lower leg"),
    ("arm", "wrist|forearm|arm|hand|elbow|watch|smartwatch"),
    ("shank", "ankle|shin|shank|calf|foot|shoe"),
    ("thigh", "thigh|knee|leg"),
    ("trunk", "waist|belt|hip|chest|torso|trunk|back|sternum|pelvis"),
    ("thigh", "trouser|trousers|pocket"),
)
"""The first line with a word of the placement gives its segment: phrases before words, and parts
of the body before what clothes them ("hip pocket")."""


def segment_of(placement: str | None) -> str:
    """The body segment that a placement's words name, in any spelling.

    "waist (smartphone)" -> "trunk", "right thigh (above knee)" -> "thigh".

    Returns:
        One of `SEGMENTS`; "unknown" for None and for words that name none.
    """
    letters = (c if c.isalpha() else " " for c in (placement or "").lower())
    text = f" {' '.join(''.join(letters).split())} "
    for segment, words in _WORDS:
        if any(f" {word} " in text for word in words.split("|")):
            return segment
    return UNKNOWN


def known_placements() -> str:
    """The words that `segment_of` knows, for people."""
    return ", ".join(word for _, words in _WORDS for word in words.split("|"))


class PostureEvidence(NamedTuple):
    """The angles of one window."""

    face_deg: float
    """Angle of the device's flat face from vertical, 0 to 90."""

    tilt_deg: float | None
    """Angle from the wearer's upright direction, 0 to 180; None where that is not known."""


def posture_evidence(imu: NDArray[np.float32], upright: Vector | None) -> PostureEvidence | None:
    """The angles of a window, or None where it has no steady direction.

    Args:
        imu: (6, 1000) as in `edge.window.Window`.
        upright: unit vector of `UprightTracker.reference_at`.
    """
    direction = gravity_direction(imu)
    if direction is None:
        return None
    tilt_deg = None
    if upright is not None:
        cosine = sum(a * b for a, b in zip(direction, upright, strict=True))
        tilt_deg = math.degrees(math.acos(_clip(cosine)))
    return PostureEvidence(math.degrees(math.asin(_clip(abs(direction[2])))), tilt_deg)


def _clip(cosine: float) -> float:
    return min(1.0, max(-1.0, cosine))  # rounding may leave the range of acos


def gravity_direction(imu: NDArray[np.float32]) -> Vector | None:
    """The direction of a window's mean acceleration in device axes.

    Args:
        imu: (6, 1000) as in `edge.window.Window`.

    Returns:
        A unit vector; None where a second of the window points more than 25 degrees elsewhere,
        or the mean is too short to be gravity.
    """
    acc = imu[:3].reshape(3, -1, _PIECE)
    x, y, z = (acc @ _ONES).tolist()
    counts = [_PIECE] * len(x)
    if math.isnan(sum(x)):  # looked for only here: most windows lack nothing
        measured = ~np.isnan(acc[0])
        counts = measured.sum(axis=1).tolist()
        x, y, z = np.where(measured, acc, 0).sum(axis=2).tolist()
    return steady_direction(list(zip(x, y, z, counts, strict=True)), _PIECE, STEADY_DEG)


def motion_mps2(imu: NDArray[np.float32]) -> float:
    """How much a window moves: nothing but a sensor's noise where the device lies on a table.

    Args:
        imu: (6, 1000) as in `edge.window.Window`, with NaN where missing.

    Returns:
        Root mean square, in m/s^2, of the acceleration's deviation from its second's mean, over
        the three axes together; a slow turn of the body counts little.
    """
    acc = imu[:3].reshape(3, -1, _PIECE)
    mean = acc @ _ONES
    deviation = acc - mean[:, :, None] / _PIECE
    flat = deviation.ravel()
    total = float(flat @ flat)
    n = len(flat)
    if math.isnan(total):
        counts = (~np.isnan(acc)).sum(axis=2)
        measured = np.nan_to_num(acc)
        deviation = (
            measured - measured.sum(axis=2, keepdims=True) / np.maximum(counts, 1)[..., None]
        )
        flat = deviation[~np.isnan(acc)]
        total, n = float(flat @ flat), len(flat)
    return math.sqrt(3 * total / n) if n else 0.0


@dataclass(frozen=True)
class _Table:
    """How likely each bin of one angle is, by segment."""

    edges_deg: list[float]
    """Of the B bins, B + 1 ascending angles."""

    ratios: dict[str, NDArray[np.float64]]
    """(B, 4) by segment: each posture's probability of the bin over the mean of the three, and 1
    for an activity that claims no posture."""

    def bin_of(self, angle_deg: float) -> int:
        """The bin that an angle falls into; the last one holds its upper edge too."""
        return min(bisect_right(self.edges_deg, angle_deg) - 1, len(self.edges_deg) - 2)


@dataclass(frozen=True)
class PostureTables:
    """A bundle's tables of both angles."""

    face: _Table
    tilt: _Table

    @classmethod
    def parse(cls, record: Any) -> PostureTables:
        """The tables of a manifest's `decision.posture`, specified in `export/BUNDLE.md`.

        Raises:
            InputError: it is malformed, and where.
        """
        if not isinstance(record, dict) or record.get("postures") != list(POSTURES):
            raise InputError(f"decision.posture.postures: expected {', '.join(POSTURES)}")
        return cls(_table(record, "face", 90.0), _table(record, "tilt", 180.0))

    def log_likelihoods(self, weights: NDArray[np.float64], segment: str) -> LogLikelihoods:
        """How much each angle speaks for each label.

        Args:
            weights: (L, 4) share of each posture, and of none, in each label; rows add up to 1.
            segment: one of `SEGMENTS`.
        """
        face, tilt = (np.log(t.ratios[segment] @ weights.T) for t in (self.face, self.tilt))
        return LogLikelihoods(self, face, tilt, np.zeros(len(weights)))


@dataclass(frozen=True)
class LogLikelihoods:
    """Logs of the labels' mean ratios, worked out for one body segment."""

    tables: PostureTables

    face: NDArray[np.float64]
    """(B, L) by bin of the face angle."""

    tilt: NDArray[np.float64]
    """(B, L) by bin of the tilt."""

    nothing: NDArray[np.float64]
    """(L,) zeros."""

    def of(self, evidence: PostureEvidence | None) -> NDArray[np.float64]:
        """(L,) by the tilt where it is known, else by the face angle; None says nothing."""
        if evidence is None:
            return self.nothing
        if evidence.tilt_deg is None:
            row: NDArray[np.float64] = self.face[self.tables.face.bin_of(evidence.face_deg)]
        else:
            row = self.tilt[self.tables.tilt.bin_of(evidence.tilt_deg)]
        return row


def _table(record: dict[str, Any], name: str, highest_deg: float) -> _Table:
    edges = _numbers(record, f"{name}_edges_deg")
    ascending = edges.ndim == 1 and len(edges) > 1 and (np.diff(edges) > 0).all()
    if not (ascending and edges[0] == 0 and edges[-1] == highest_deg):
        raise InputError(
            f"decision.posture.{name}_edges_deg: expected angles ascending from 0 to "
            f"{highest_deg:g}"
        )
    of_segment = record.get(name)
    if not isinstance(of_segment, dict) or set(of_segment) != set(SEGMENTS):
        raise InputError(f"decision.posture.{name}: expected one table each of {SEGMENTS}")
    ratios = {}
    for segment in SEGMENTS:
        table = _numbers(of_segment, segment)
        if table.shape != (len(POSTURES), len(edges) - 1):
            raise InputError(
                f"decision.posture.{name}.{segment}: expected {len(POSTURES)} rows of "
                f"{len(edges) - 1} probabilities"
            )
        if not (table > 0).all() or not np.allclose(table.sum(axis=1), 1, atol=0.01):
            raise InputError(
                f"decision.posture.{name}.{segment}: expected probabilities above 0 in rows that "
                "add up to 1"
            )
        ratio = table / table.mean(axis=0)
        ratios[segment] = np.ascontiguousarray(np.vstack([ratio, np.ones_like(ratio[0])]).T)
    return _Table(edges.tolist(), ratios)


def _numbers(record: dict[str, Any], key: str) -> NDArray[np.float64]:
    """A (nested) list of finite numbers; an array without elements where it is none."""
    try:
        numbers = np.asarray(record.get(key), np.float64)
    except (TypeError, ValueError):
        return np.empty(0)
    return numbers if np.isfinite(numbers).all() else np.empty(0)
