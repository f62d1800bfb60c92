"""New labels for a bundle's bank, and other ones for old: prototypes without training.

Needs neither torch nor onnx, only the extra `text` (or whatever the chosen text encoder needs).
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from edge.bundle import PROTOTYPES_FILE, Bundle, load_bundle, normalised
from edge.text import COMPACT_NAME
from edge.zeroshot import prototype
from export.manifest import bank_entry, check_space, put_in_place, staging
from firmware_bridge.errors import AuraError, InputError
from training.captions import Activity, checked_posture
from training.text_encoders import load_text_encoder

_FIELDS = {"name", "group", "posture", "aliases", "description"}


def read_activities(path: Path) -> tuple[Activity, ...]:
    """The activities of a file of labels.

    * TOML (`*.toml`) in the form of `training/label_bank.toml`; only `name` is required.
    * Any other text: one activity a line, its name or `name = alias, alias`; `#` starts a comment.

    Raises:
        InputError: the file cannot be read, names none, or names one twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file in UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    parse = _from_toml if path.suffix == ".toml" else _from_lines
    activities = parse(path, text)
    if not activities:
        raise InputError(f"{path}: names no activity; one a line is expected")
    owner: dict[str, str] = {}
    for activity in activities:
        for wording in (activity.name, *activity.aliases):
            if normalised(wording) in owner:
                raise InputError(
                    f"{path}: {wording!r} is given twice, under {owner[normalised(wording)]!r} "
                    f"and {activity.name!r}"
                )
            owner[normalised(wording)] = activity.name
    return activities


def _from_lines(path: Path, text: str) -> tuple[Activity, ...]:
    activities = []
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.split("#")[0].strip()
        if not content:
            continue
        name, _, rest = content.partition("=")
        if not normalised(name):
            raise InputError(f"{path}:{number}: no name before '='")
        aliases = tuple(alias.strip() for alias in rest.split(",") if normalised(alias))
        activities.append(Activity(name.strip(), "other", aliases, ""))
    return tuple(activities)


def _from_toml(path: Path, text: str) -> tuple[Activity, ...]:
    try:
        rows = tomllib.loads(text).get("activity", [])
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not TOML ({error})") from None
    if not isinstance(rows, list):
        raise InputError(f"{path}: [activity] is one table; write [[activity]] for each")
    return tuple(_from_table(path, number, row) for number, row in enumerate(rows, start=1))


def _from_table(path: Path, number: int, row: Any) -> Activity:
    """One [[activity]]; a misspelt field would otherwise be lost without a word."""
    if not isinstance(row, dict) or row.keys() - _FIELDS:
        raise InputError(
            f"{path}: activity {number} has to be a table of {', '.join(sorted(_FIELDS))}"
        )
    name, aliases = row.get("name"), row.get("aliases", [])
    texts = [name, row.get("group", "other"), row.get("description", "")]
    if not isinstance(aliases, list) or not all(isinstance(t, str) for t in texts + aliases):
        raise InputError(f"{path}: activity {number}: texts are expected, and a list of aliases")
    if not all(normalised(wording) for wording in (name, *aliases)):
        raise InputError(f"{path}: activity {number} has an empty name or alias")
    posture = checked_posture(row.get("posture"), f"{path}: activity {number}")
    return Activity(texts[0], texts[1], tuple(aliases), texts[2], posture=posture)


@dataclass
class _Bank:
    """A bundle's label bank while it changes: entries and prototypes, row by row."""

    entries: list[dict[str, Any]]
    prototypes: list[NDArray[np.float16]]

    def put(self, row: int | None, activity: Activity, made_by: str, vector: Any) -> None:
        """Write an activity into a row, or into a new one.

        Rows never move, so that those of a bundle's decision stay valid. What takes an activity's
        place has its posture too, unless it names one itself.
        """
        if row is not None and activity.posture is None:
            activity = replace(activity, posture=self.entries[row].get("posture"))
        entry = bank_entry(activity, made_by)
        half = np.asarray(vector, np.float16)
        if row is None:
            self.entries.append(entry)
            self.prototypes.append(half)
        else:
            self.entries[row] = entry
            self.prototypes[row] = half


def add_labels(
    bundle_folder: Path,
    labels_file: Path,
    text_encoder: str | None,
    replace: bool,
    set_default: bool,
) -> Bundle:
    """Add activities to a bundle's label bank and write it back.

    Args:
        bundle_folder: the bundle; all its other prototypes stay as they are, bit by bit.
        labels_file: see `read_activities`.
        text_encoder: name for `load_text_encoder`; None is the one that made the bundle's bank.
        replace: an activity that shares a name or alias with one of the bank takes its place,
            instead of being an error.
        set_default: the file's activities become the bundle's default labels.

    Returns:
        The new bundle, loaded as the runtime does.

    Raises:
        InputError: the bundle, the file or the text encoder cannot be used, or a name is taken.
        AuraError: the folder cannot be written.
    """
    bundle = load_bundle(bundle_folder)
    activities = read_activities(labels_file)
    rows = [_row_of(activity, bundle, replace) for activity in activities]
    _check_rows(activities, rows, bundle)
    encoder = load_text_encoder(text_encoder or bundle.manifest["text"]["encoder"])
    check_space(bundle, encoder)
    manifest = deepcopy(bundle.manifest)
    bank = _Bank(manifest["label_bank"], list(bundle.prototypes.astype(np.float16)))
    templates = manifest["text"]["prompt_templates"]
    for activity, row in zip(activities, rows, strict=True):
        vector = prototype(_captions(activity, templates), encoder)
        bank.put(row, activity, encoder.name, vector)
    manifest["default_labels"] = (
        [activity.name for activity in activities]
        if set_default
        else _still_known(bundle, bank.entries)
    )
    with staging(bundle_folder) as staged:
        arrays: dict[str, NDArray[np.floating[Any]]] = {
            "prototypes": np.stack(bank.prototypes),
            "centre": bundle.centre,
        }
        if bundle.reference is not None:
            arrays["reference"] = bundle.reference.astype(np.float16)
        np.savez(staged / PROTOTYPES_FILE, allow_pickle=False, **arrays)
        return put_in_place(bundle_folder, staged, [PROTOTYPES_FILE], manifest)


def _captions(activity: Activity, templates: Sequence[str]) -> list[str]:
    """Every template with every wording, and the description if there is one."""
    wordings = (activity.name, *activity.aliases)
    captions = [template.format(wording) for wording in wordings for template in templates]
    return captions + [activity.description] * bool(activity.description)


def _row_of(activity: Activity, bundle: Bundle, replace: bool) -> int | None:
    """The bank's row that a new activity takes the place of; None if it is new."""
    wordings = (activity.name, *activity.aliases)
    taken = {w: bundle.bank[normalised(w)] for w in wordings if normalised(w) in bundle.bank}
    if not taken:
        return None
    said = ", ".join(f"{w!r} (of {bundle.bank_names[row]!r})" for w, row in taken.items())
    if not replace:
        raise InputError(
            f"{activity.name!r}: already in the bundle's bank: {said}; leave it out, or take its "
            "place with --replace"
        )
    if len(set(taken.values())) > 1:
        raise InputError(
            f"{activity.name!r}: its names belong to several activities of the bundle's bank: "
            f"{said}; one can only take the place of one"
        )
    return next(iter(taken.values()))


def _check_rows(activities: Sequence[Activity], rows: Sequence[int | None], bundle: Bundle) -> None:
    """Refuse two new activities in the place of one old."""
    owner: dict[int, str] = {}
    for activity, row in zip(activities, rows, strict=True):
        if row is None:
            continue
        if row in owner:
            raise InputError(
                f"{owner[row]!r} and {activity.name!r} would both take the place of "
                f"{bundle.bank_names[row]!r}"
            )
        owner[row] = activity.name


def _still_known(bundle: Bundle, entries: Sequence[dict[str, Any]]) -> list[str]:
    """The bundle's default labels; one whose name went with its activity takes the new name."""
    labels = []
    for label in bundle.manifest["default_labels"]:
        row = bundle.bank.get(normalised(label))
        entry = entries[row] if row is not None else None
        known = entry is None or normalised(label) in map(
            normalised, (entry["name"], *entry["aliases"])
        )
        labels.append(label if entry is None or known else entry["name"])
    return labels


def main(argv: list[str] | None = None) -> int:
    """Entry point of `edge-export prototypes`."""
    parser = argparse.ArgumentParser(
        prog="edge-export prototypes",
        description="Add labels to a bundle's bank, without training.",
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder")
    parser.add_argument(
        "--labels",
        type=Path,
        required=True,
        metavar="FILE",
        help="one label a line, with aliases if you like: name = alias, alias; or TOML in the form "
        "of training/label_bank.toml",
    )
    parser.add_argument(
        "--text-encoder",
        metavar="NAME",
        help=f"{COMPACT_NAME} or open_clip:ARCH:PRETRAINED (default: what made the bundle's bank)",
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="a label whose name or alias is in the bank takes that activity's place",
    )
    parser.add_argument(
        "--default",
        action="store_true",
        help="these labels become the ones told apart when edge-run is given none",
    )
    args = parser.parse_args(argv)
    console = Console(stderr=True, soft_wrap=True)
    try:
        bundle = add_labels(args.bundle, args.labels, args.text_encoder, args.replace, args.default)
    except AuraError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return error.exit_code
    console.print(f"bundle {bundle.id}: {len(bundle.bank_names)} activities", highlight=False)
    print(args.bundle)
    return 0


if __name__ == "__main__":
    sys.exit(main())
