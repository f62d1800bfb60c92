"""What the commands that measure on a labelled corpus have in common: options, reading, errors."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Only what parsing needs is imported here: `--help` has to answer at once.
from edge.threads import one_thread
from firmware_bridge.errors import AuraError, InputError

if TYPE_CHECKING:
    from edge.bundle import Bundle
    from edge.corpus import Corpus

EXIT_INTERRUPTED = 130


def corpus_parser(
    prog: str, description: str, not_listed: str = "labels not listed are left out"
) -> argparse.ArgumentParser:
    """A parser with --corpus, --bundle and --labels.

    Args:
        prog: what is typed.
        description: of what is measured.
        not_listed: what becomes of labels that --labels does not list.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument(
        "--corpus",
        type=Path,
        required=True,
        metavar="DIR",
        help="a corpus folder in the shared form",
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        metavar="DIR",
        help="what edge-export wrote (default: the bundle that came along)",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE.json",
        help=f"corpus label -> label text; {not_listed} (default: the corpus' own labels)",
    )
    return parser


def opened(args: argparse.Namespace) -> tuple[Bundle, Corpus, dict[str, str]]:
    """What the options of `corpus_parser` name: the bundle, the corpus, and the label text of each
    of the corpus' labels.

    Raises:
        InputError: one of them cannot be read.
    """
    from edge.bundle import DEFAULT_BUNDLE, load_bundle
    from edge.corpus import read_corpus

    bundle = load_bundle(args.bundle or DEFAULT_BUNDLE)
    corpus = read_corpus(args.corpus)
    own = sorted({s.label for r in corpus.recordings() for s in r.segments})
    mapping = read_mapping(args.labels, corpus.name, own) if args.labels else {n: n for n in own}
    return bundle, corpus, mapping


def read_mapping(path: Path, corpus: str, own: list[str]) -> dict[str, str]:
    """Corpus label -> label text, from a file.

    Args:
        path: a JSON object; labels that the corpus lacks are noted on stderr.
        corpus: its name.
        own: its labels.

    Raises:
        InputError: no such file, not that, or none of its labels is the corpus'.
    """
    mapping = read_json(path)
    if not isinstance(mapping, dict) or not all(isinstance(v, str) for v in mapping.values()):
        raise InputError(f"{path}: expected an object, corpus label -> label text")
    absent = [name for name in mapping if name not in own]
    complaint = (
        f"{path}: {corpus} has no label {', '.join(map(repr, absent))}; it has: {', '.join(own)}"
    )
    if len(absent) == len(mapping):
        raise InputError(complaint)
    if absent:
        print(f"note: {complaint}", file=sys.stderr)
    return {name: text for name, text in mapping.items() if name in own}


def read_json(path: Path) -> Any:
    """What a file holds.

    Raises:
        InputError: no such file, or no JSON, and where.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None


def exit_code(measure: Callable[[], object]) -> int:
    """Measure, and say what went wrong: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    one_thread()
    try:
        measure()
    except AuraError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def write_json(path: Path, text: str) -> None:
    """Write a result.

    Raises:
        AuraError: it cannot be written.
    """
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise AuraError(f"{path}: cannot be written ({error.strerror or error})") from None
