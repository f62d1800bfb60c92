"""What holds for each of these importers: words of the label bank, and what they say of nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.training.importers.imported import refused
from training.captions import activity_of
from training.importers import (
    dataset,
    ego4d,
    ego_exo4d,
    hhar,
    opportunity,
    realworld,
    sisfall,
    usc_had,
    utd_mhad,
)

LABELS: dict[str, Iterable[str | None]] = {
    "realworld": realworld._LABELS.values(),
    "hhar": hhar._LABELS.values(),
    "usc_had": usc_had._LABELS.values(),
    "sisfall": sisfall._LABELS.values(),
    "utd_mhad": [label for label, _ in utd_mhad._ACTIONS],
    "opportunity": opportunity._LABELS.values(),
    "ego4d": [*ego4d._LABELS.values(), "construction work", "cooking", "eating", "playing cards"],
    "ego_exo4d": [*ego_exo4d._LABELS.values(), "cooking", "bike repair", "soccer", "basketball"],
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_are_in_the_bank(name: str) -> None:
    lacking = [x for x in LABELS[name] if x is not None and activity_of(x).group == "other"]
    assert not lacking


@pytest.mark.parametrize("name", LABELS)
def test_a_missing_or_empty_folder_is_refused(name: str, tmp_path: Path) -> None:
    src = tmp_path / "src"
    assert f"{src}: no such folder" in refused(dataset(name), src, tmp_path)
    src.mkdir()
    assert str(src) in refused(dataset(name), src, tmp_path)
