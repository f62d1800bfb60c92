"""`edge-eval`: metrics by hand, contexts, placements and groups, windows inside segments."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import Bundle
from edge.corpus import Segment, read_corpus, spans_in_segment
from edge.evaluate import (
    Scored,
    expected_calibration_error,
    macro_f1,
    main,
    metrics,
    read_groups,
    reliability,
    score,
)
from edge.labels import resolve_labels
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


CONFIDENCE = np.array([0.1, 0.12, 0.5, 0.9, 1.0])
RIGHT = np.array([False, True, True, True, False])


def test_reliability_of_a_worked_example() -> None:
    """Of 15 bins the first two windows share the second, and 1.0 belongs to the last."""
    bins = reliability(CONFIDENCE, RIGHT)
    assert [b["n_windows"] for b in bins] == [2, 1, 1, 1]
    assert [b["from"] for b in bins] == pytest.approx([1 / 15, 7 / 15, 13 / 15, 14 / 15])
    assert [b["to"] for b in bins] == pytest.approx([2 / 15, 8 / 15, 14 / 15, 1])
    assert [b["confidence"] for b in bins] == pytest.approx([0.11, 0.5, 0.9, 1])
    assert [b["accuracy"] for b in bins] == [0.5, 1, 1, 0]


def test_calibration_error_of_worked_examples() -> None:
    error = (2 * (0.5 - 0.11) + (1 - 0.5) + (1 - 0.9) + 1) / 5
    assert expected_calibration_error(CONFIDENCE, RIGHT) == pytest.approx(error)
    nine_of_ten = np.array([True] * 9 + [False])
    assert expected_calibration_error(np.full(10, 0.9), nine_of_ten) == pytest.approx(0, abs=1e-9)
    assert expected_calibration_error(np.ones(10), nine_of_ten) == pytest.approx(0.1)


def test_metrics_hold_the_calibration() -> None:
    scored = [
        Scored("s1", "a", "a" if right else "b", probability=p)
        for p, right in zip(CONFIDENCE.tolist(), RIGHT.tolist(), strict=True)
    ]
    result = metrics(scored, ("a", "b"))
    assert result["ece"] == expected_calibration_error(CONFIDENCE, RIGHT)
    assert result["reliability"] == reliability(CONFIDENCE, RIGHT)


PART = ("macro_f1", "macro_f1_ci", "n_windows", "n_subjects", "n_classes")


def test_placements_and_groups_are_scored_by_themselves() -> None:
    wrist = [Scored("s1", "a", "a", placement="wrist")] * 3
    wrist += [Scored("s2", "a", "b", placement="wrist")] * 2
    waist = [Scored("s2", "b", "b", placement="waist"), Scored("s3", "a", "a", placement="waist")]
    result = metrics(wrist + waist, ("a", "b"), {"one": ["s1"], "others": ["s2", "s4"]})

    def alone(scored: list[Scored]) -> dict[str, object]:
        whole = metrics(scored, ("a", "b"))
        return {key: whole[key] for key in PART}

    assert result["by_placement"] == {"waist": alone(waist), "wrist": alone(wrist)}
    # On the wrist only a occurs: 3 of 5 found, none false. By hand: F1 = 2 * 3 / (3 + 5).
    assert result["by_placement"]["wrist"]["macro_f1"] == pytest.approx(6 / 8)
    assert [result["by_placement"]["wrist"][key] for key in PART[2:]] == [5, 2, 1]
    low, high = result["by_placement"]["wrist"]["macro_f1_ci"]
    assert (low, high) == (0, 1)  # s2 alone or s1 alone
    assert result["by_group"] == {"one": alone(wrist[:3]), "others": alone(wrist[3:] + waist[:1])}
    assert (result["n_subjects"], result["n_windows"]) == (3, 7)  # s3 is in no group
    assert "by_group" not in metrics(waist, ("a", "b"))


def test_a_group_without_windows_has_no_macro_f1() -> None:
    result = metrics([Scored("s1", "a", "a")], ("a",), {"absent": ["s2"]})
    assert result["by_group"] == {"absent": dict(zip(PART, (None, None, 0, 0, 0), strict=True))}


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
    assert judged["reliability"] == forced["reliability"]
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


@pytest.mark.parametrize("placement", ["corpus", "unknown"])
def test_scored_windows_know_placement_and_probability(
    placement: str, corpus: Path, bundle: Bundle
) -> None:
    """The placement is the recording's own, whether or not the decision is told it."""
    own = {"walking": "walking", "lying": "lying"}
    labels = resolve_labels(list(own), bundle)
    scored, _ = score(bundle, labels, read_corpus(corpus), own, "recording", placement)
    assert len(scored) == 15 and {s.placement for s in scored} == {"waist"}
    assert all(0.5 <= s.probability < 1 for s in scored)  # the better of two
    assert len({s.probability for s in scored}) > 1


def place(corpus: Path, placements: list[str]) -> None:
    """Say of each recording where its device was worn."""
    import pyarrow
    from pyarrow import parquet

    file = corpus / "recordings.parquet"
    table = parquet.read_table(file).drop_columns(["placement"])
    parquet.write_table(table.append_column("placement", pyarrow.array(placements)), file)


def write_groups(path: Path, groups: object) -> str:
    path.write_text(json.dumps(groups))
    return str(path)


def test_placements_and_groups_of_a_corpus(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place(corpus, ["waist", "wrist", "waist"])
    groups = write_groups(tmp_path / "groups.json", {"odd": ["s1"], "[even]": ["s0"]})
    argv = ["--corpus", str(corpus), "--groups", groups]
    result = run(capsys, *argv)
    by_placement, by_group = result["by_placement"], result["by_group"]
    assert isinstance(by_placement, dict) and isinstance(by_group, dict)
    assert {p: part["n_windows"] for p, part in by_placement.items()} == {"waist": 10, "wrist": 5}
    assert by_group["odd"] == by_placement["wrist"] and by_group["[even]"]["n_subjects"] == 1

    assert main(argv) == 0
    out = capsys.readouterr().out
    assert isinstance(result["ece"], float)
    assert f"expected calibration error {result['ece']:.3f}" in out
    assert "placement" in out and "group" in out
    for name, part in (by_placement | by_group).items():
        low, high = part["macro_f1_ci"]
        row = next(line for line in out.splitlines() if name in line)
        cells = [cell.strip() for cell in row.strip("│").split("│")]
        n_windows, n_subjects = str(part["n_windows"]), str(part["n_subjects"])
        interval = f"{low:.3f} to {high:.3f}"
        assert cells == [name, f"{part['macro_f1']:.3f}", interval, "2", n_windows, n_subjects]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"old":\n ["s0",]}', "groups.json:2: not JSON"),
        ('["s0"]', "groups.json: expected an object, group name -> list of subjects"),
        ("{}", "groups.json: expected an object, group name -> list of subjects"),
        ('{"old": "s0"}', "groups.json: expected an object, group name -> list of subjects"),
        ('{"old": [0]}', "groups.json: expected an object, group name -> list of subjects"),
        ('{"old": []}', "groups.json: expected an object, group name -> list of subjects"),
        ('{"old": ["s0", "s7"]}', "'old': mini has no subject 's7'; it has: s0, s1, s2"),
        ('{"old": ["s0"], "new": ["s0"]}', "subject 's0' is in two groups, 'old' and 'new'"),
        (None, "groups.json: no such file"),
    ],
)
def test_groups_that_cannot_be_used_say_why(
    text: str | None, complaint: str, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = corpus.parent / "groups.json"
    if text is not None:
        groups.write_text(text)
    assert main(["--corpus", str(corpus), "--groups", str(groups)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert complaint in error


AGES = REPO / "tests" / "labels" / "weda_ages.json"


def test_the_ages_of_weda_fall() -> None:
    folder = REPO.parent / "shared" / "corpora" / "weda"
    if not folder.exists():
        pytest.skip(f"{folder} is not on this machine")
    subjects = sorted({r.subject for r in read_corpus(folder).recordings()})
    groups = read_groups(AGES, "weda", subjects)
    assert {group: len(members) for group, members in groups.items()} == {
        "younger": 14,
        "77 to 95 years": 11,
    }
    assert sorted(s for members in groups.values() for s in members) == subjects


def test_the_table_for_people(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--corpus", str(corpus), "--placement", "unknown"]) == 0
    out = capsys.readouterr().out
    assert "macro-F1" in out and "walking" in out and "15 windows of 3 subjects" in out
    assert "expected calibration error 0." in out
    assert "waist" not in out and "group" not in out  # one placement is the whole


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
