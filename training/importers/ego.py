"""What the two egocentric data sets share: sentences with a time, about the person who wears it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.window import MIN_SPAN_S
from firmware_bridge.errors import InputError
from training.importers.form import Skipped, Text

TEXT_S = 5.0
"""A sentence has one time stamp: this much of the recording, one window, is what it speaks of."""


@dataclass(frozen=True)
class Sentence:
    """A sentence about [start_s, stop_s) of the recording's clock."""

    start_s: float
    stop_s: float
    text: str
    kind: str


def around(t_s: float, text: str, kind: str) -> Sentence:
    """A sentence about what happens at a time."""
    return Sentence(t_s - TEXT_S / 2, t_s + TEXT_S / 2, text, kind)


def before(t_s: float, text: str, kind: str) -> Sentence:
    """A sentence about what has been seen when it is said."""
    return Sentence(t_s - TEXT_S, t_s, text, kind)


def about_wearer(text: str) -> str:
    """The letter C, for the wearer, in plain words: "C lifts C's cup" -> "a person lifts the
    person's cup"."""
    plain = re.sub(r"\bC\b", "a person", text, count=1)
    return re.sub(r"\bC\b", "the person", plain).strip().rstrip(".").rstrip()


def texts_on(
    sentences: Sequence[Sentence],
    grids: Sequence[tuple[float, int]],
    rate_hz: float,
    source: Path,
    skipped: Skipped,
) -> list[tuple[Text, ...]]:
    """The sentences on a recording's pieces; one under `MIN_SPAN_S` of signal is left out, noted.

    Args:
        sentences: in s of the recording's clock.
        grids: (start in s, samples) of each piece.
        rate_hz: of the pieces.
        source: what `skipped` names.
        skipped: where sentences without signal are noted.

    Returns: the texts of each piece, in the order of their starts.
    """
    found: list[list[Text]] = [[] for _ in grids]
    for sentence in sorted(sentences, key=lambda s: s.start_s):
        placed = False
        for (start_s, n), texts in zip(grids, found, strict=True):
            start = max(0, round((sentence.start_s - start_s) * rate_hz))
            stop = min(n, round((sentence.stop_s - start_s) * rate_hz))
            if stop - start >= MIN_SPAN_S * rate_hz:
                texts.append(Text(start, stop, sentence.text, sentence.kind))
                placed = True
        if not placed:
            skipped.note(source, f"{sentence.kind} without a signal")
    return [tuple(texts) for texts in found]


@contextmanager
def published_form(path: Path) -> Iterator[Any]:
    """The content of a JSON file, while what is published of its form is taken from it.

    Raises:
        InputError: it is missing, not JSON (names the line), or has another form.
    """
    try:
        yield json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: missing") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not in the published form ({type(error).__name__}: {error})"
        ) from None
