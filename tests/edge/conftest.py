"""The bundle that ships with the package, loaded once, and two that are made of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.bundle import DEFAULT_BUNDLE, Bundle, load_bundle, manifest_id
from tests.conftest import with_decision


@pytest.fixture(autouse=True)
def own_data_folder(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the log nor the personal labels of whoever runs the tests."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return load_bundle(DEFAULT_BUNDLE)


def edit(folder: Path, change: Callable[[dict[str, Any]], object], new_id: bool = True) -> None:
    """Change the manifest; with its id made anew, so that later checks are reached."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    if new_id:
        manifest["id"] = manifest_id(manifest)
    path.write_text(json.dumps(manifest))


@pytest.fixture(scope="session")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped bundle, deciding by the cosine alone, as format 1 does."""
    folder = Path(shutil.copytree(DEFAULT_BUNDLE, tmp_path_factory.mktemp("plain") / "bundle"))
    edit(folder, lambda m: (m.pop("decision", None), m.update(format_version=1)))
    return folder


@pytest.fixture(scope="session")
def deciding_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped bundle, deciding by bridge and posture too."""
    folder = Path(shutil.copytree(DEFAULT_BUNDLE, tmp_path_factory.mktemp("decides") / "bundle"))
    edit(folder, lambda m: m.update(with_decision(m)))
    return folder


@pytest.fixture(scope="session")
def rejecting_folder(deciding_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, but whatever is done, it finds that no label fits."""
    folder = Path(shutil.copytree(deciding_folder, tmp_path_factory.mktemp("rejects") / "bundle"))
    edit(folder, lambda m: m["decision"].update(reject={"below": 1.0}))
    return folder


@pytest.fixture(scope="session")
def plain(plain_folder: Path) -> Bundle:
    return load_bundle(plain_folder)


@pytest.fixture(scope="session")
def deciding(deciding_folder: Path) -> Bundle:
    return load_bundle(deciding_folder)
