"""`edge-eval`: metrics by hand, contexts, windows inside segments."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from edge.corpus import Segment, read_corpus, spans_in_segment
from edge.evaluate import Scored, macro_f1, main, metrics
from firmware_bridge.errors import InputError
from tests.conftest import REPO, write_corpus
from tests.edge.conftest import edit

pytest.importorskip("pyarrow")


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, object]:
    assert main([*argv, "--json"]) == 0
    result: dict[str, object] = json.loads(capsys.readouterr().out)
    return result


def test_macro_f1_of_a_worked_example() -> None:
    """Class a: 3 of 4 found, 1 false: F1 = 6/8. Class b: 1 of 2 found, 1 false: F1 = 2/4.
    Class c never occurs but is said once: it does not count."""
    confusion = np.array([[3, 1, 0], [1, 1, 0], [0, 0, 0]])
    assert macro_f1(confusion) == pytest.approx((6 / 8 + 2 / 4) / 2)


def test_metrics_and_their_interval() -> None:
    scored = (
        [Scored("s1", "a", "a")] * 6 + [Scored("s2", "a", "b")] * 2 + [Scored("s2", "b", "b")] * 2
    )
    result = metrics(scored, ("a", "b"))
    assert result["accuracy"] == pytest.approx(0.8)
    assert result["confusion"] == [[6, 2], [0, 2]]
    assert result["macro_f1"] == pytest.approx((12 / 14 + 4 / 6) / 2)
    low, high = result["macro_f1_ci"]
    assert low <= result["macro_f1"] <= high and low < high
    assert result["per_class"]["a"]["n_windows"] == 8
    assert result["unknown_fraction"] == 0
    scored[0] = Scored("s1", "a", "a", unknown=True)
    assert metrics(scored, ("a", "b")) == result | {"unknown_fraction": 0.1}


def test_spans_lie_inside_their_segment() -> None:
    assert spans_in_segment(Segment(100, 1100, "x"), 100.0, 2.5) == [
        (200, 1200), (700, 1700), (1200, 2200)
    ]  # fmt: skip
    assert spans_in_segment(Segment(0, 75, "x"), 25.0, 2.5) == [(0, 600)]
    assert spans_in_segment(Segment(0, 24, "x"), 25.0, 2.5) == []


def test_every_context_scores_the_same_windows(
    tmp_path: Path, plain_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path / "two_days", n_sessions=2)
    results = [
        run(capsys, "--corpus", str(corpus), "--bundle", str(plain_folder), "--context", c)
        for c in ("window", "recording", "subject")
    ]
    assert {r["n_windows"] for r in results} == {6 * (3 + 2)}  # 12 s: 3 windows, 8 s: 2 windows
    # The encoder has no memory and this bundle decides by it alone: the past cannot change what it
    # says, but for the resampler's edge at a window cut out of its recording.
    assert results[1]["confusion"] == results[2]["confusion"]
    assert results[0]["n_subjects"] == 3
    for key in ("accuracy", "macro_f1", "macro_f1_ci", "per_class", "confusion"):
        assert key in results[0]
    assert isinstance(results[0]["accuracy"], float) and isinstance(results[0]["macro_f1"], float)


def test_unknown_windows_are_counted_and_scored_as_forced(
    corpus: Path,
    deciding_folder: Path,
    rejecting_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = ["--corpus", str(corpus), "--bundle"]
    forced = run(capsys, *argv, str(deciding_folder))
    judged = run(capsys, *argv, str(rejecting_folder))
    assert (forced["unknown_fraction"], judged["unknown_fraction"]) == (0, 1)
    assert judged["confusion"] == forced["confusion"]
    assert main([*argv, str(rejecting_folder)]) == 0
    assert "100.0% of the windows would be called unknown" in capsys.readouterr().out


@pytest.fixture
def by_posture_alone(deciding_folder: Path, tmp_path: Path) -> Path:
    """A bundle whose posture tables outweigh all else."""
    folder = Path(shutil.copytree(deciding_folder, tmp_path / "by_posture"))
    edit(folder, lambda m: m["decision"]["posture"].update(weight=1000))
    return folder


def test_what_each_context_may_know(
    tmp_path: Path, by_posture_alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The wearer walks with the device's face level and lies with it upright, so the face angle is
    always wrong, and the tilt, known after 11 s of walking, always right. Of the five windows of a
    recording, the three of walking end before that."""
    corpus = write_corpus(tmp_path / "two_days", n_sessions=2)

    def accuracy(context: str, placement: str) -> float:
        argv = ["--corpus", str(corpus), "--bundle", str(by_posture_alone)]
        result = run(capsys, *argv, "--context", context, "--placement", placement)
        assert result["n_windows"] == 30 and result["placement"] == placement
        assert isinstance(result["accuracy"], float)
        return result["accuracy"]

    assert accuracy("window", "corpus") == 0
    assert accuracy("recording", "corpus") == pytest.approx(2 / 5)
    assert accuracy("subject", "corpus") == pytest.approx((2 + 5) / 10)
    blind = accuracy("window", "unknown")  # only the cosines are left
    assert blind > 0 and blind == pytest.approx(accuracy("subject", "unknown"), abs=0.04)


def test_labels_are_mapped_and_left_out(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mapping = tmp_path / "labels.json"
    mapping.write_text('{"lying": "lying"}')
    result = run(capsys, "--corpus", str(corpus), "--labels", str(mapping))
    assert result["n_windows"] == 6 and result["labels"] == ["lying"] and result["accuracy"] == 1
    mapping.write_text('{"lying": "lying", "flying": "gliding"}')
    assert run(capsys, "--corpus", str(corpus), "--labels", str(mapping))["labels"] == ["lying"]
    mapping.write_text('{"flying": "lying"}')
    assert main(["--corpus", str(corpus), "--labels", str(mapping)]) == 2
    assert "has no label 'flying'; it has: lying, walking" in capsys.readouterr().err


def test_the_table_for_people(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--corpus", str(corpus), "--placement", "unknown"]) == 0
    out = capsys.readouterr().out
    assert "macro-F1" in out and "walking" in out and "15 windows of 3 subjects" in out


def test_a_corpus_that_is_broken_says_where(corpus: Path, tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    with pytest.raises(InputError, match=r"corpus\.json: missing"):
        read_corpus(tmp_path / "absent")
    bad = pyarrow.table({"recording": [0], "start": [5], "stop": [10**9], "label": ["x"]})
    parquet.write_table(bad, corpus / "segments.parquet")
    with pytest.raises(InputError, match=r"segments\.parquet, row 0: samples 5 to 1000000000"):
        read_corpus(corpus)
    parquet.write_table(bad.drop_columns(["label"]), corpus / "segments.parquet")
    with pytest.raises(InputError, match="no column label"):
        read_corpus(corpus)


def test_samples_are_scaled_to_si(tmp_path: Path) -> None:
    corpus = read_corpus(write_corpus(tmp_path / "c"))
    (first, *_), n = list(corpus.recordings()), len(corpus)
    assert n == 3 and first.rate_hz == 50 and len(first.samples) == 1150
    still = first.samples.acc_mps2[800:]
    assert np.median(np.abs(still[:, 0])) == pytest.approx(9.81, abs=0.02)


def test_real_corpora_are_readable() -> None:
    folder = REPO.parent / "shared" / "corpora" / "hapt"
    if not folder.exists():
        pytest.skip(f"{folder} is not on this machine")
    corpus = read_corpus(folder)
    recording = next(corpus.recordings())
    assert corpus.role == "benchmark" and len(corpus) == 61
    norm = np.sqrt((recording.samples.acc_mps2**2).sum(axis=1))
    assert np.median(norm) == pytest.approx(9.8, abs=0.6)
