"""What an experiment hands out: a table on the screen, `table.md` and `results.json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from training.protocols.cells import CELLS_FOLDER, Done

RESULTS_FILE = "results.json"
TABLE_FILE = "table.md"

_WIDTH = 140
"""Columns where the output is no terminal."""


@dataclass
class Report:
    """A table, row by row, and the same in JSON."""

    protocol: str
    title: str
    columns: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    """What holds for all rows."""

    notes: list[str] = field(default_factory=list)
    rows: list[tuple[str, ...]] = field(default_factory=list)
    _results: list[dict[str, Any]] = field(default_factory=list)

    def add(self, row: Sequence[str], result: dict[str, Any]) -> None:
        """A row for people and the same for machines."""
        if len(row) != len(self.columns):
            raise ValueError(f"{len(row)} cells for {len(self.columns)} columns")
        self.rows.append(tuple(row))
        self._results.append(result)

    def write(self, out: Path, done: Sequence[Done]) -> None:
        """Write both files and print the table on stdout."""
        out.mkdir(parents=True, exist_ok=True)
        stored = {
            "protocol": self.protocol,
            **self.facts,
            "notes": self.notes,
            "rows": self._results,
            "cells": [f"{CELLS_FOLDER}/{d.cell.key}.json" for d in done],
            "git_revisions": sorted({d.git_revision for d in done}),
        }
        text = json.dumps(stored, indent=1, ensure_ascii=False) + "\n"
        (out / RESULTS_FILE).write_text(text, encoding="utf-8")
        (out / TABLE_FILE).write_text(self.markdown(), encoding="utf-8")
        console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
        console.print(self._table())
        for note in self.notes:
            console.print(f"* {note}", markup=False, highlight=False)

    def markdown(self) -> str:
        """The table for a README."""
        lines = [self.columns, ("---",) * len(self.columns), *self.rows]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return "\n\n".join([self.title, table, *(f"* {note}" for note in self.notes)]) + "\n"

    def _table(self) -> Table:
        table = Table(title=self.title)
        for column in self.columns:
            table.add_column(column, overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        return table
