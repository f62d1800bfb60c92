"""`edge-train import` from its arguments to its exit code."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.conftest import walk
from training.importers import DATASETS
from training.importers.command import add_parser, run


def parsed(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="edge-train")
    add_parser(parser.add_subparsers(dest="command", required=True))
    return parser.parse_args(["import", *argv])


def imported(*argv: str) -> tuple[int, str]:
    """(exit code, what was said)."""
    console = Console(width=200, record=True, stderr=True)
    code = run(parsed(*argv), console)
    return code, console.export_text()


def dsads(src: Path, scale: float = 1.0) -> Path:
    """A walk in a parking lot, all five units alike."""
    samples = walk(10, 25)
    assert samples.gyro_rads is not None
    unit = np.hstack([samples.acc_mps2 * scale, samples.gyro_rads, np.zeros((250, 3))])
    folder = src / "data" / "a09" / "p1"
    folder.mkdir(parents=True)
    for number in (0, 1):
        rows = np.tile(unit[125 * number : 125 * (number + 1)], 5)
        np.savetxt(folder / f"s{number + 1:02d}.txt", rows, delimiter=",", fmt="%.5f")
    return src


def test_help_lists_every_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parsed("--help")
    shown = capsys.readouterr().out
    for name, line in DATASETS.items():
        assert f"{name}" in shown
        assert line in shown


def test_import_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = imported("dsads", str(dsads(tmp_path / "src")), str(tmp_path / "corpora"))
    assert code == 0
    assert capsys.readouterr().out == f"{tmp_path / 'corpora' / 'dsads'}\n"
    assert "recordings: 5\nsubjects: 1\nhours: 0.0\n" in said
    assert "worn at: torso 1, right arm 1" in said
    assert "     0.8  walking in a parking lot" in said
    assert (tmp_path / "corpora" / "dsads" / "corpus.json").exists()


@pytest.mark.parametrize(
    ("name", "scale", "message"),
    [
        ("imagenet", 1.0, "error: no data set 'imagenet'; there are: pamap2"),
        ("dsads", 1 / 9.80665, "expected 8.3 to 11.3. Probably the files are in g"),
        ("pamap2", 1.0, "no recording of PAMAP2"),
    ],
)
def test_bad_input_is_an_error_and_nothing_is_written(
    tmp_path: Path, name: str, scale: float, message: str
) -> None:
    src, dst = dsads(tmp_path / "src", scale), tmp_path / "corpora"
    code, said = imported(name, str(src), str(dst))
    assert code == 2
    assert message in said
    assert not dst.exists() or not list(dst.iterdir())
