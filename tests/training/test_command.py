"""`edge-train` names its commands, and hands over to the one that is asked for."""

from __future__ import annotations

import pytest

from training.__main__ import main
from training.protocols import PROTOCOLS

COMMANDS = ("import", "fit", "fit-decision", *PROTOCOLS)


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert all(f"\n    {name}" in said for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: edge-train {name} ")


@pytest.mark.parametrize("argv", [["fly"], []])
def test_an_unknown_command_is_refused_with_the_known_ones(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2
    assert "edge-train" in capsys.readouterr().err
