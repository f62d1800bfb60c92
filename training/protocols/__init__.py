"""Protocols: how recognisers are trained and scored, one command each.

* `zero-shot`: on corpora that were never trained on.
* `leave-one-out`: on each training corpus in turn, trained on all others: for development.
* `ablate`: the same without each augmentation.
* `unseen`: on activities that were never trained on, among all others.
* `settings`: zero-shot, transfer and fine-tuning on one corpus, with few or many labelled windows.
* `robustness`: without gyroscope, at lower rates, with lost packets, worn elsewhere.

Each is a module with `add_parser` and `run`. Modules import what needs torch when they run, for
`--help` has to answer at once.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

PROTOCOLS = ("zero-shot", "leave-one-out", "ablate", "unseen", "settings", "robustness")


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add all protocols to `edge-train`'s commands."""
    for name in PROTOCOLS:
        _module(name).add_parser(commands)


def run(args: argparse.Namespace, console: Console) -> int:
    """Carry out the protocol that was asked for; returns the exit code.

    Raises:
        InputError: a corpus, a label, a checkpoint or an option cannot be used.
    """
    try:
        code: int = _module(args.command).run(args, console)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on where it stopped")
        return 130
    return code


def _module(name: str) -> Any:
    return import_module(f"training.protocols.{name.replace('-', '_')}")
