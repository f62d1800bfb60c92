"""What examples are worth: which windows are shown and which are scored, and the figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import Bundle
from edge.corpus import CorpusRecording, Segment, read_corpus
from edge.personal.evaluate import (
    _f1_change,
    _halves,
    _paired,
    _stream,
    _takes,
    evaluate,
    main,
)
from firmware_bridge.samples import Samples
from tests.conftest import write_corpus

pytest.importorskip("pyarrow")

NAMES = ["walking", "lying"]
MAPPING = {name: name for name in NAMES}


def recorded(number: int, *segments: tuple[float, float]) -> list[tuple[CorpusRecording, Segment]]:
    """A 50 Hz recording's segments, in seconds."""
    own = tuple(Segment(round(a * 50), round(b * 50), "walking") for a, b in segments)
    nothing = Samples(np.zeros(0), np.zeros((0, 3)), None)
    recording = CorpusRecording(number, "s0", "day0", "waist", 50.0, nothing, own)
    return [(recording, segment) for segment in own]


def test_the_first_half_of_the_recordings_gives_examples() -> None:
    own = [*recorded(3, (0, 8), (20, 26)), *recorded(4, (0, 10)), *recorded(7, (2, 5))]
    seconds = [
        (number, [(span[0] / 200, span[1] / 200, k, example) for span, k, example in due])
        for number, due in _halves(own, 30.0)
    ]
    assert seconds == [
        (3, [(0, 5, 0, True), (1, 6, 0, True), (2, 7, 0, True), (3, 8, 0, True)]),
        (3, [(20, 25, 1, True), (21, 26, 1, True)]),
        (4, [(0, 5, 2, False), (2.5, 7.5, 2, False), (5, 10, 2, False)]),
        (7, [(2, 5, 3, False)]),
    ]  # fmt: skip


def test_a_label_recorded_once_gives_examples_from_its_beginning() -> None:
    parts = _halves(recorded(3, (10, 40), (50, 55)), 15.0)
    shown = [s for _, due in parts for s, _, example in due if example]
    scored = [s for _, due in parts for s, _, example in due if not example]
    assert shown[0][0] / 200 == 10 and shown[-1][1] / 200 == 25 and len(shown) == 11
    assert [(s[0] / 200, s[1] / 200) for s in scored] == [
        (30, 35),
        (32.5, 37.5),
        (35, 40),
        (50, 55),
    ]


def test_no_scored_window_shares_a_sample_with_an_example(tmp_path: Path, bundle: Bundle) -> None:
    corpus = read_corpus(write_corpus(tmp_path / "mini", n_sessions=2))
    wearings = _stream(bundle, corpus, MAPPING, NAMES, 30.0)
    assert [w.subject for w in wearings] == ["s0", "s1", "s2"]
    for wearing in wearings:
        # Two recordings of each label: one is shown, the other scored.
        assert {w.label for w in wearing.examples} == {w.label for w in wearing.scored} == {0, 1}
        assert len(wearing.examples) == 8 + 4 and len(wearing.scored) == 3 + 2


def test_takes_are_as_long_as_asked_for(tmp_path: Path, bundle: Bundle) -> None:
    corpus = read_corpus(write_corpus(tmp_path / "mini", n_subjects=1, n_sessions=4))
    (wearing,) = _stream(bundle, corpus, MAPPING, NAMES, 30.0)
    windows = {
        seconds: [[len(t.embeddings) for t in own] for own in _takes(wearing, seconds).values()]
        for seconds in (5.0, 10.0, 15.0, 19.0, 30.0)
    }
    # Two recordings of 12 s of walking and of 8 s of lying are to be shown.
    assert windows == {
        5.0: [[1], [1]],
        10.0: [[6], [4]],
        15.0: [[8], [4, 3]],
        19.0: [[8, 3], [4, 4]],
        30.0: [[8, 8], [4, 4]],
    }
    assert _takes(wearing, 5.0)[0][0].placement == "waist"


def test_figures_of_a_small_corpus(tmp_path: Path, bundle: Bundle) -> None:
    corpus = read_corpus(write_corpus(tmp_path / "mini", n_sessions=2))
    wearings = _stream(bundle, corpus, MAPPING, NAMES, 30.0)
    result = evaluate(bundle, NAMES, wearings, (5.0, 30.0))
    assert result["n_subjects"] == 3 and result["n_windows"] == 15
    assert list(result["seconds"]) == ["0", "5", "30"]
    shown = result["seconds"]["30"]
    assert shown["mean_seconds"] == pytest.approx((12 + 8) / 2)
    before = result["seconds"]["0"]["all"]["macro_f1"]
    assert shown["all"]["difference"] == pytest.approx(shown["all"]["macro_f1"] - before)
    assert shown["all"]["macro_f1"] == 1 and shown["all"]["subjects_worse"] == 0
    assert set(shown["one"]["own_by_label"]) == set(NAMES)


def test_differences_are_paired_by_subject() -> None:
    """Subject b goes from 1 to 2/3 on average; a and c stay."""
    right, half = np.array([[2, 0], [0, 2]]), np.array([[2, 0], [1, 1]])
    paired = _paired({"a": right, "b": right, "c": half}, {"a": right, "b": half, "c": half})
    assert paired["subjects_worse"] == 1
    total_old, total_new = np.array([[6, 0], [1, 5]]), np.array([[6, 0], [2, 4]])
    f1_old = (12 / 13 + 10 / 11) / 2
    f1_new = (12 / 14 + 8 / 10) / 2
    assert paired["difference"] == pytest.approx(f1_new - f1_old)
    assert paired["difference_ci"][0] < paired["difference"] < paired["difference_ci"][1] <= 0
    change, is_there = _f1_change(total_old, total_new)
    np.testing.assert_allclose(change, [12 / 14 - 12 / 13, 8 / 10 - 10 / 11])
    assert is_there.tolist() == [True, True]


def test_the_command_prints_a_table_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_corpus(tmp_path / "mini", n_subjects=2, n_sessions=2)
    out = tmp_path / "figures.json"
    assert main(["--corpus", str(folder), "--seconds", "0,5", "--json", str(out)]) == 0
    said = capsys.readouterr().out
    assert "mini: 10 windows of 2 subjects" in said
    assert "5 s, one enrolled: least is gained by " in said
    assert json.loads(out.read_text())["corpus"] == "mini"


def test_a_corpus_with_nothing_to_enrol_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_corpus(tmp_path / "mini", n_subjects=1)  # 12 and 8 s, recorded once
    assert main(["--corpus", str(folder)]) == 2
    assert "long or often enough" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--corpus", str(folder), "--seconds", "2"])
