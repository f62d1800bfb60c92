"""The cells of an experiment: one model, one seed, one corpus (or fold) each.

A finished cell is a JSON file under `OUT/cells/`, named by a hash of everything that decides it, so
that an experiment that was interrupted goes on where it stopped and one that was extended only
computes what is new.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from training.run_folder import git_revision

CELLS_FOLDER = "cells"

VERSION = 1
"""Part of every hash: raise it when the same facts no longer give the same result."""


@dataclass(frozen=True)
class Cell:
    """One result, and how to get it."""

    title: str
    """For people: what is computed."""

    facts: dict[str, Any]
    """Everything that decides the result, as JSON has it."""

    make: Callable[[], dict[str, Any]]
    """Computes the result; called only where it is not there yet."""

    @property
    def key(self) -> str:
        """16 hexadecimal digits that change when the facts do."""
        return digest({"version": VERSION, **self.facts})


@dataclass(frozen=True)
class Done:
    """A finished cell."""

    cell: Cell
    result: dict[str, Any]
    git_revision: str


def digest(facts: Any) -> str:
    """16 hexadecimal digits of plain data, whatever the order of its keys."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run_cells(cells: Sequence[Cell], out: Path, console: Console) -> list[Done]:
    """Compute the cells that are not finished yet, one after another; all results in order."""
    folder = out / CELLS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    waiting = sum(not _path(folder, cell).exists() for cell in cells)
    if waiting < len(cells):
        console.print(f"{len(cells) - waiting} of {len(cells)} results are there already")
    done, made, began = [], 0, time.monotonic()
    for cell in cells:
        path = _path(folder, cell)
        if not path.exists():
            console.print(f"[{made + 1}/{waiting}] {cell.title}", markup=False, highlight=False)
            _write(path, cell)
            made += 1
            left_s = (time.monotonic() - began) / made * (waiting - made)
            if left_s >= 60:
                console.print(f"about {left_s / 60:.0f} min left", highlight=False)
        stored = json.loads(path.read_text(encoding="utf-8"))
        done.append(Done(cell, stored["result"], stored["git_revision"]))
    _tell_of_other_revisions(done, console)
    return done


def _path(folder: Path, cell: Cell) -> Path:
    return folder / f"{cell.key}.json"


def _write(path: Path, cell: Cell) -> None:
    began = time.monotonic()
    result = cell.make()
    stored = {
        "title": cell.title,
        "facts": cell.facts,
        "result": result,
        "git_revision": git_revision(),
        "elapsed_s": round(time.monotonic() - began, 1),
    }
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(stored, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def _tell_of_other_revisions(done: Sequence[Done], console: Console) -> None:
    """The code is not part of the hash: a comment would cost hours of training."""
    here = git_revision()
    others = sorted({d.git_revision for d in done} - {here})
    if others:
        console.print(
            f"note: some results were made by other revisions of the code ({', '.join(others)}; "
            f"here: {here}); to compute them again, delete {CELLS_FOLDER}/ in the output folder",
            highlight=False,
        )
