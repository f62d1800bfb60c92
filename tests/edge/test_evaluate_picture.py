"""`edge-eval --picture`: what is drawn, that it can be read, and errors before the work."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.evaluate import Scored, main, metrics
from edge.evaluate_picture import check_picture, draw, figure_of
from firmware_bridge.errors import InputError
from tests.conftest import REPO
from tests.test_imports import imported, modules_of

pytest.importorskip("matplotlib")

NAMES = (
    r"counting $\notes$",  # as a formula it could not be read
    "sitting, attempting to get up and collapsing into the chair",
    "taking one thing after another out of the shopping bags and putting all where it belongs",
)


def evaluated(scored: list[Scored], labels: tuple[str, ...]) -> dict[str, Any]:
    facts = {"corpus": "mini", "bundle": "aura-edge-0123", "context": "recording"}
    return {**facts, **metrics(scored, labels)}


def random_result(n_labels: int) -> dict[str, Any]:
    """Two of three labels have a long name; the last never occurs but is said."""
    rng = np.random.default_rng(n_labels)
    labels = tuple(f"{NAMES[i % len(NAMES)]} {i}" for i in range(n_labels))
    scored = [
        Scored(
            f"s{rng.integers(5)}",
            labels[rng.integers(n_labels - 1)],
            labels[rng.integers(n_labels)],
            probability=float(rng.uniform(1 / n_labels, 1)),
        )
        for _ in range(30 * n_labels)
    ]
    return evaluated(scored, labels)


@pytest.mark.parametrize("n_labels", [2, 30])
def test_the_file_is_a_picture_of_a_size_to_read(n_labels: int, tmp_path: Path) -> None:
    from matplotlib.image import imread

    file = tmp_path / "out.png"
    draw(random_result(n_labels), file)
    pixels = imread(file)
    height, width, _ = pixels.shape
    # 0.42 inches a label, 4 at least, at 150 dots an inch; names and the diagram beside them.
    side = 150 * max(4, 0.42 * n_labels)
    assert side < height < side + 900 and side + 600 < width < 2 * side + 1200
    assert pixels[..., :3].std() > 0.05  # not a blank page


@pytest.mark.parametrize(("suffix", "begin"), [("svg", b"<?xml"), ("PDF", b"%PDF")])
def test_the_suffix_is_the_format(suffix: str, begin: bytes, tmp_path: Path) -> None:
    file = tmp_path / f"out.{suffix}"
    check_picture(file)
    draw(random_result(3), file)
    assert file.read_bytes().startswith(begin)


@pytest.mark.parametrize("n_labels", [2, 4, 12, 40])
def test_names_do_not_run_into_each_other(n_labels: int) -> None:
    figure = figure_of(random_result(n_labels))
    figure.draw_without_rendering()
    matrix, diagram, histogram = figure.axes
    below = [t.get_window_extent() for t in matrix.get_xticklabels()]
    assert len(below) == n_labels
    assert all(a.x1 <= b.x0 for a, b in pairwise(below))
    beside = {t.get_text().replace("\n", " "): t.get_window_extent() for t in matrix.texts}
    names = [beside[name] for name in random_result(n_labels)["labels"]]
    assert all(a.y0 >= b.y1 for a, b in pairwise(names))
    assert max(b.x1 for b in names) <= beside["F1"].x0 + 1
    parts = [axes.get_tightbbox() for axes in (matrix, diagram, histogram)]
    assert parts[0] and parts[1] and parts[2]
    assert parts[0].x1 < min(parts[1].x0, parts[2].x0)


def test_shares_and_f1_of_a_worked_example() -> None:
    """Of 200 windows of a, 1 (half a percent) is called c and 60 b; b is always found; c never
    occurs."""
    scored = [Scored("s1", "a", "a")] * 139 + [Scored("s1", "a", "b")] * 60
    scored += [Scored("s2", "a", "c")] + [Scored("s2", "b", "b")] * 30
    result = evaluated(scored, ("a", "b", "c"))
    figure = figure_of(result)
    matrix, diagram, _ = figure.axes
    texts = [t.get_text() for t in matrix.texts]
    assert sorted(t for t in texts if t.isdigit()) == ["0", "100", "200", "30", "30", "70"]
    # a: F1 = 2 * 139 / (139 + 200); b: 2 * 30 / (90 + 30); c: none. The last is c's.
    assert [t for t in texts if t.startswith("0.") or t == "-"] == ["0.82", "0.50", "-"]
    title, facts = (t.get_text() for t in figure.texts)
    low, high = result["macro_f1_ci"]
    assert title == f"mini: macro-F1 0.660 (95 % over subjects {low:.3f} to {high:.3f})"
    assert "bundle aura-edge-0123" in facts
    assert diagram.get_title() == f"expected calibration error {result['ece']:.3f}"


def test_bars_of_the_reliability_diagram() -> None:
    scored = [Scored("s1", "a", "a", probability=0.9)] * 3
    scored += [Scored("s1", "a", "b", probability=0.9), Scored("s1", "a", "b", probability=0.5)]
    _, diagram, histogram = figure_of(evaluated(scored, ("a", "b"))).axes

    def bars(axes: Any) -> list[float]:
        return [value for bar in axes.patches for value in (bar.get_x(), bar.get_height())]

    assert bars(diagram) == pytest.approx([7 / 15, 0, 13 / 15, 0.75])
    assert bars(histogram) == pytest.approx([7 / 15, 20, 13 / 15, 80])


def test_the_command_draws_at_the_end(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out.png"
    assert main(["--corpus", str(corpus), "--picture", str(file)]) == 0
    assert file.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert "macro-F1" in capsys.readouterr().out


def test_a_result_is_not_lost_with_its_picture(
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    assert main(["--corpus", str(corpus), "--picture", str(tmp_path / "out.png")]) == 2
    told = capsys.readouterr()
    assert "macro-F1" in told.out
    assert told.err.endswith("out.png: cannot be written (No space left on device)\n")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("out.jpg", r"out\.jpg: a picture's name has to end in \.png, \.svg, \.pdf"),
        ("out", r"has to end in \.png"),
        ("absent/out.png", r"there is no folder .*absent; make it first"),
        ("folder.png", r"folder\.png: is a folder"),
    ],
)
def test_a_name_that_cannot_be_drawn_to(name: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match=complaint):
        check_picture(tmp_path / name)


def test_errors_come_before_the_corpus_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["--corpus", str(tmp_path / "absent"), "--picture"]
    assert main([*argv, str(tmp_path / "out.gif")]) == 2
    assert "out.gif: a picture's name has to end in" in capsys.readouterr().err
    for name in [n for n in sys.modules if n.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main([*argv, str(tmp_path / "out.png")]) == 2
    assert capsys.readouterr().err == (
        'error: drawing needs matplotlib; install it with: pip install "aura-edge[eval]"\n'
    )


def test_only_the_picture_needs_matplotlib() -> None:
    needing = [path.name for path in modules_of("edge") if "matplotlib" in imported(path)]
    assert needing == ["evaluate_picture.py", "picture.py"]
    code = """
import sys
sys.modules["matplotlib"] = None
import edge.evaluate_picture
from edge.evaluate import main
sys.exit(main(["--help"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "--picture" in done.stdout, done.stderr


def test_help_imports_nothing_to_draw_or_compute() -> None:
    code = """
import sys
from edge.evaluate import main
try:
    main(["--help"])
finally:
    print("imported:", {"matplotlib", "numpy"} & sys.modules.keys())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert done.stdout.endswith("imported: set()\n"), done.stdout + done.stderr
