"""`python -m training` / `edge-train`: hands over to the module of a command.

Nothing that needs torch is imported before it is needed: help has to answer at once, `import` works
without torch, and where a package is missing the user is told what to install.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TypeAlias

from rich.console import Console

from firmware_bridge.errors import AuraError

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(argv: list[str] | None = None) -> int:
    """Entry point of `edge-train`."""
    argv = sys.argv[1:] if argv is None else argv
    console = Console(stderr=True)
    try:
        return _dispatch(argv, console)
    except ImportError as error:
        print(
            f"error: edge-train needs the package {error.name!r}, which is not installed; "
            'install it with: pip install "aura-edge[training]"',
            file=sys.stderr,
        )
        return 2
    except AuraError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return error.exit_code


def _dispatch(argv: list[str], console: Console) -> int:
    """Import what the command needs, and no more, and carry the command out."""
    if argv[:1] == ["fit"]:
        from training import fit_command

        return fit_command.run(_parse(argv, fit_command.add_parser), console)
    if argv[:1] == ["fit-decision"]:
        from training import fit_decision

        return fit_decision.run(_parse(argv, fit_decision.add_parser), console)
    from training.importers import command as importing

    if argv[:1] == ["import"]:
        return importing.run(_parse(argv, importing.add_parser), console)
    from training import protocols

    def add_all(commands: Commands) -> None:
        importing.add_parser(commands)
        commands.add_parser("fit", help="train an encoder on corpora")
        commands.add_parser("fit-decision", help="fit what decides beside the cosine")
        protocols.add_parsers(commands)

    return protocols.run(_parse(argv, add_all), console)


def _parse(argv: list[str], add_commands: Callable[[Commands], None]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="edge-train", description="Train and score IMU encoders on a workstation."
    )
    add_commands(parser.add_subparsers(dest="command", required=True, metavar="COMMAND"))
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
