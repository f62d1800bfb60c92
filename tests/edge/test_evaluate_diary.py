"""The diary's evaluation: figures by hand, and a whole corpus through the command."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from edge.evaluate_diary import FRAME_S, Stretch, Tally, Told, count, main, summary
from tests.conftest import write_corpus

A, B, NONE = 0, 1, -1


def live(said: str, first_s: float = 5.0) -> list[Stretch]:
    """One window a second; "." says none of the labels."""
    labels = [{"a": A, "b": B, ".": NONE}[c] for c in said]
    ends = [*(first_s + k for k in range(1, len(said))), float("inf")]
    return [
        Stretch(first_s + k, end, label)
        for k, (end, label) in enumerate(zip(ends, labels, strict=True))
    ]


TRUTH = [Stretch(0, 10, A), Stretch(14, 24, B)]  # 4 s of no label between them


def test_frames_are_counted_where_there_is_a_label() -> None:
    written = [Stretch(0, 12, A), Stretch(12, 15, NONE), Stretch(15, 30, B)]
    tally = count(TRUTH, Told(live("a" * 7 + "b" * 20), written), 2)
    assert tally.written.tolist() == [[100, 0, 0], [0, 90, 10], [0, 0, 0]]
    # Nothing is said live in the first 5 s; from 12 s on it is b.
    assert tally.live.tolist() == [[50, 0, 50], [0, 100, 0], [0, 0, 0]]


def test_what_is_not_labelled_is_cut_out_of_events() -> None:
    """An event that only fills a stretch without label is no insertion, and one across it that is
    right on both sides is one."""
    told = Told(live("a" * 20), [Stretch(0, 10, A), Stretch(10.5, 13, B), Stretch(14, 24, B)])
    tally = count(TRUTH, told, 2)
    assert +tally.events == Counter({"correct": 2})
    assert not any(tally.wrong_s.values())
    both_a = [Stretch(0, 10, A), Stretch(14, 24, A)]
    tally = count(both_a, Told(live("a" * 20), [Stretch(0, 24, A)]), 2)
    assert +tally.events == Counter({"correct": 1})


def test_time_that_is_said_wrongly() -> None:
    told = Told(live("a" * 20), [Stretch(0, 18, A), Stretch(18, 24, B)])
    tally = count(TRUTH, told, 2)
    assert {k: round(s, 6) for k, s in tally.wrong_s.items() if s} == {
        "overfill": 4,
        "underfill": 4,
    }


@pytest.mark.parametrize(
    ("said", "delays_s"),
    [
        # From 5 s on; the second segment starts at 14 s.
        ("a" * 12 + "b" * 5, (3.0,)),
        ("a" * 9 + "b" * 5, (0.0,)),
        ("a" * 6 + "b" * 8, (0.0,)),  # said before it was true
        ("a" * 19 + "b" * 5, ()),  # too late: the segment ended at 24 s
        ("a" * 9 + "a.b" + "b" * 5, (2.0,)),
    ],
)
def test_delay_after_a_change(said: str, delays_s: tuple[float, ...]) -> None:
    tally = count(TRUTH, Told(live(said), [Stretch(0, 24, A)]), 2)
    assert tally.delays_s == pytest.approx(delays_s)
    assert tally.changes == 1


def test_what_was_said_just_before_is_no_negative_delay() -> None:
    told = Told(live("a" * 6 + "b" * 8, first_s=5.5), [Stretch(0, 24, A)])
    assert count(TRUTH, told, 2).delays_s == (0.0,)


def test_the_same_label_again_is_no_change() -> None:
    again = [Stretch(0, 10, A), Stretch(14, 24, A), Stretch(24, 30, B)]
    assert count(again, Told(live("a" * 20), [Stretch(0, 24, A)]), 2).changes == 1


def test_flips_are_counted_of_all_that_is_said() -> None:
    tally = count(TRUTH, Told(live("aab.aa"), [Stretch(0, 24, A)]), 2)
    assert tally.flips == 3 and tally.minutes == pytest.approx(5 / 60)


def tally(right: int, wrong: int, flips: int, delays_s: tuple[float, ...] = (1.0,)) -> Tally:
    table = np.array([[right, wrong, 0], [wrong, right, 0], [0, 0, 0]])
    return Tally(table, table, flips, 2.0, delays_s, 2, Counter(correct=1), {"overfill": 0.5})


def test_summary_adds_up_and_compares_with_raw_by_subject() -> None:
    result = summary(
        {
            "s1": [{"raw": tally(6, 4, 40), "filtered": tally(8, 2, 8), "smoothed": tally(9, 1, 4)}]
            * 2,
            "s2": [
                {"raw": tally(7, 3, 20), "filtered": tally(9, 1, 4), "smoothed": tally(9, 1, 4)}
            ],
        }
    )
    raw, filtered, smoothed = (result["ways"][way] for way in ("raw", "filtered", "smoothed"))
    assert result["n_subjects"] == 2 and result["minutes"] == 6 and result["true_changes"] == 6
    assert result["labelled_s"] == pytest.approx(60 * FRAME_S)
    assert raw["written_macro_f1"] == pytest.approx(19 / 30)
    assert raw["flips_per_minute"] == pytest.approx(100 / 6)
    assert filtered["changes_found"] == 0.5 and filtered["median_delay_s"] == 1
    assert filtered["minus_raw_ci"]["written_macro_f1"] == pytest.approx([0.2, 0.2])
    assert raw["minus_raw_ci"]["flips_per_minute"] == [0, 0]
    assert raw["events"] == {"correct": 3} and raw["wrong_s"]["overfill"] == 1.5
    assert "live_macro_f1" not in smoothed and "median_delay_s" not in smoothed
    json.dumps(result, allow_nan=False)


def test_where_nothing_changes_there_is_no_delay() -> None:
    one = Tally(np.eye(3, dtype=int), np.eye(3, dtype=int), 0, 1.0, (), 0, Counter(), {})
    result = summary({"s1": [dict.fromkeys(("raw", "filtered", "smoothed"), one)]})
    assert "median_delay_s" not in result["ways"]["raw"]
    assert "changes_found" not in result["ways"]["filtered"]


def test_a_corpus_through_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus, out = write_corpus(tmp_path / "mini"), tmp_path / "out.json"
    assert main(["--corpus", str(corpus), "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["n_subjects"] == 3 and result["true_changes"] == 3
    # 15 s of walking of which 12 are labelled, and 8 s of lying, with 3 s unlabelled between them.
    assert result["labelled_s"] == pytest.approx(3 * 20)
    assert result["minutes"] == pytest.approx(3 * 18 / 60, abs=0.06)
    for way in ("raw", "filtered", "smoothed"):
        assert np.sum(result["ways"][way]["written_confusion"]) == 600
    assert "3 subjects, 3 changes of label" in capsys.readouterr().out


def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--corpus", str(tmp_path / "none")]) == 2
    assert "corpus.json: missing" in capsys.readouterr().err
    corpus, labels = write_corpus(tmp_path / "mini"), tmp_path / "labels.json"
    labels.write_text('{"running": "jogging"}')
    assert main(["--corpus", str(corpus), "--labels", str(labels)]) == 2
    assert "mini has no label 'running'" in capsys.readouterr().err
