"""The runtime is light, and imports go one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPO

ORDER = ("firmware_bridge", "edge", "training", "export")
HEAVY = {"torch", "onnx", "open_clip", "onnxscript", "transformers", "pandas", "sklearn"}


def modules_of(package: str) -> list[Path]:
    return sorted((REPO / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level names of everything a file imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", ORDER)
def test_imports_go_one_way(package: str) -> None:
    later = set(ORDER[ORDER.index(package) + 1 :])
    forbidden = later | (HEAVY if package in ("firmware_bridge", "edge") else set())
    found = {str(p): imported(p) & forbidden for p in modules_of(package)}
    assert modules_of(package) and not any(found.values()), found


def test_the_runtime_imports_where_torch_does_not_exist() -> None:
    """In a process that refuses every heavy package, as a device without them would."""
    names = [
        ".".join(p.relative_to(REPO).with_suffix("").parts)
        for package in ("firmware_bridge", "edge")
        for p in modules_of(package)
    ]
    code = f"""
import sys
from importlib import import_module
for heavy in {sorted(HEAVY | {"training", "export", "pyarrow", "tokenizers"})!r}:
    sys.modules[heavy] = None
for name in {names!r}:
    import_module(name)
print("imported", len({names!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("imported"), done.stderr


def without_torch(package: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """A workstation command where neither torch nor onnx is installed."""
    code = f"""
import sys
for heavy in ("torch", "onnx"):
    sys.modules[heavy] = None
from {package}.__main__ import main
sys.exit(main({list(argv)!r}))
"""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "command", [("training", "fit", "CORPUS", "--out", "OUT"), ("export", "--help")]
)
def test_a_workstation_command_without_torch_says_what_to_install(command: list[str]) -> None:
    done = without_torch(*command)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert 'pip install "aura-edge[training]"' in done.stderr


@pytest.mark.parametrize("argv", [["--help"], ["import", "--help"]])
def test_commands_that_need_no_torch_answer_without_it(argv: list[str]) -> None:
    done = without_torch("training", *argv)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: edge-train")
