"""`edge-train import`: the original files of a public data set -> a corpus folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from firmware_bridge.errors import AuraError
from training.importers import DATASETS, dataset

if TYPE_CHECKING:
    from training.importers.form import Dataset, Summary


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `import` to `edge-train`'s commands."""
    width = max(map(len, DATASETS))
    parser = commands.add_parser(
        "import",
        help="bring a public data set's original files into the corpus form",
        description="Write DST/DATASET, a corpus, from the original files in SRC.",
        epilog="data sets:\n" + "\n".join(f"  {n:{width}}  {DATASETS[n]}" for n in DATASETS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", metavar="DATASET", help="one of those below")
    parser.add_argument("src", type=Path, metavar="SRC", help="folder of the unpacked data set")
    parser.add_argument("dst", type=Path, metavar="DST", help="folder of corpora to write to")


def run(args: argparse.Namespace, console: Console) -> int:
    """Import what `args` asks for; returns the exit code."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}"))
    try:
        chosen = dataset(args.dataset)
        from training.importers.form import write_corpus

        with Progress(*columns, console=console, transient=True) as progress:
            summary = write_corpus(chosen, args.src, args.dst, progress)
    except ImportError as error:
        message = f'needs {error.name!r}; install it with: pip install "aura-edge[training]"'
        console.print(f"error: edge-train import {message}", style="red", markup=False)
        return 2
    except AuraError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return error.exit_code
    except KeyboardInterrupt:
        console.print("stopped; nothing was written")
        return 130
    console.print(_report(chosen, summary), markup=False, highlight=False)
    print(summary.folder)
    return 0


def _report(chosen: Dataset, summary: Summary) -> str:
    placements = ", ".join(f"{where} {n}" for where, n in summary.placements.items())
    lines = [
        f"recordings: {summary.recordings}",
        f"subjects: {summary.subjects}",
        f"hours: {summary.hours:.1f}",
        f"worn at: {placements}",
        *([f"sentences: {summary.texts}"] if summary.texts else []),
        "minutes by label:",
        *(f"  {minutes:8.1f}  {label}" for label, minutes in summary.label_minutes.items()),
    ]
    if summary.skipped:
        lines += ["left out:"]
        lines += [f"  {n:8d}  {what} (first: {path})" for what, n, path in summary.skipped]
    if chosen.note:
        lines += [f"note: {chosen.note}"]
    return "\n".join(lines)
