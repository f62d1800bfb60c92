"""Sentences about stretches of a recording: the optional texts.parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge.corpus import Text, read_corpus
from firmware_bridge.errors import InputError


def write_texts(folder: Path, **columns: list[Any]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table
    parquet.write_table(table(columns), folder / "texts.parquet")


def test_texts_belong_to_their_recording_in_order(corpus: Path) -> None:
    write_texts(
        corpus,
        recording=[2, 0, 0],
        start=[0, 100, 50],
        stop=[250, 350, 300],
        text=["a person lies", "a person turns", "a person walks"],
        kind=["narration"] * 3,
    )
    first, second, third = read_corpus(corpus).recordings()
    assert first.texts == (
        Text(50, 300, "a person walks", "narration"),
        Text(100, 350, "a person turns", "narration"),
    )
    assert second.texts == ()
    assert third.texts == (Text(0, 250, "a person lies", "narration"),)


def test_a_corpus_without_texts_has_none(corpus: Path) -> None:
    assert [r.texts for r in read_corpus(corpus).recordings()] == [(), (), ()]


def test_texts_outside_of_their_recording_are_refused(corpus: Path) -> None:
    good = {"recording": [0], "start": [0], "stop": [9], "text": ["x"], "kind": ["narration"]}
    for wrong in ({"stop": [10**6]}, {"recording": [99]}, {"start": [9]}, {"start": [-1]}):
        write_texts(corpus, **{**good, **wrong})
        with pytest.raises(InputError, match=r"texts\.parquet, row 0"):
            read_corpus(corpus)
    write_texts(corpus, **{k: v for k, v in good.items() if k != "kind"})
    with pytest.raises(InputError, match="no column kind"):
        read_corpus(corpus)
