"""Samples -> a take: the examples of a label that someone showed, through the streaming path's own
resampler, windows, encoder and angles."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain

import numpy as np

from edge.bundle import Bundle
from edge.personal.examples import Take
from edge.personal.store import Shown, valid_windows
from edge.posture import posture_evidence
from edge.resample import GridBlock, Resampler
from edge.spec import SIGNAL
from edge.upright import UprightTracker
from edge.window import END_TOLERANCE_S
from firmware_bridge.errors import InputError
from firmware_bridge.samples import Samples


def take(
    chunks: Iterator[Samples],
    start_s: float,
    end_s: float,
    bundle: Bundle,
    placement: str | None,
    source: str,
) -> Shown:
    """Cut examples out of a stream; it is read from its first sample, for what it shows of the
    wearer's upright direction, to little after the examples' end.

    Args:
        chunks: the stream's samples.
        start_s: where the examples begin, in seconds after the stream's first sample.
        end_s: where they end; 5 s later or more.
        bundle: whose encoder embeds them.
        placement: where the device is worn, in words; None if that is not known.
        source: name of the stream.

    Raises:
        InputError: the stream ends sooner, or too much of it is missing there.
    """
    first, stop = round(start_s * SIGNAL.rate_hz), round(end_s * SIGNAL.rate_hz)
    signal = np.full((len(SIGNAL.channels), stop - first), np.nan, np.float32)
    upright = UprightTracker()
    reached = 0
    for block in _blocks(chunks):
        upright.push(block)
        reached = block.stop_index
        begin, end = max(block.start_index, first), min(reached, stop)
        if begin < end:
            values = block.values[begin - block.start_index : end - block.start_index]
            signal[: values.shape[1], begin - first : end - first] = values.T
        if reached >= stop:
            break
    if reached < stop - END_TOLERANCE_S * SIGNAL.rate_hz:
        raise InputError(
            f"the examples should last from {start_s:g} to {end_s:g} s, but {source} ends after "
            f"{reached / SIGNAL.rate_hz:.1f} s"
        )
    embeddings, angles = [], []
    for start, window in valid_windows(signal):
        reference = upright.reference_at(first + start + SIGNAL.window_samples)
        evidence = posture_evidence(window, reference)
        face_deg, tilt_deg = evidence or (None, None)
        embeddings.append(bundle.encoder.embed(window))
        angles.append([np.nan if a is None else a for a in (face_deg, tilt_deg)])
    if not embeddings:
        raise InputError(
            f"{source}: no 5 s between {start_s:g} and {end_s:g} s of which at least 80 % were "
            "measured; show the examples again"
        )
    face, tilt = np.array(angles, np.float32).T
    examples = Take(np.stack(embeddings), face, tilt, placement)
    return Shown(examples, signal, datetime.now(UTC).isoformat(timespec="seconds"), source)


def _blocks(chunks: Iterator[Samples]) -> Iterator[GridBlock]:
    resampler = Resampler()
    yield from chain.from_iterable(map(resampler.push, chunks))
    yield from resampler.finish()
