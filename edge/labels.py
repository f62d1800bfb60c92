"""The user's labels -> prototypes: from examples, the bundle's bank or the text encoder."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edge.bundle import Bundle, normalised
from edge.decision import LabelDecision
from edge.personal.examples import Take, teach
from edge.personal.store import Personal
from edge.text import (
    BUNDLE_VOCAB_FILE,
    TEXT_ENCODER_FILE,
    TextEncoder,
    load_bundle_text_encoder,
    load_compact_text_encoder,
)
from edge.zeroshot import LabelSet, prototype
from firmware_bridge.errors import InputError

EXAMPLES = "examples"
"""Maker of a personal label's prototype."""


def parse_labels(text: str) -> list[str]:
    """Labels from an option's value: a file with one label a line, or a comma-separated list.

    Raises:
        InputError: no label, or the same one twice.
    """
    path = Path(text)
    if _is_file(path):
        try:
            content = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{path}: not a text file in UTF-8") from None
        lines = (line.split("#")[0].strip() for line in content.splitlines())
        labels = [line for line in lines if line]
    else:
        labels = [part.strip() for part in text.split(",") if part.strip()]
    if not labels:
        raise InputError(
            f"--labels {text!r} names no label; give a list such as "
            '"walking, climbing stairs, sitting" or a file with one label a line'
        )
    seen: dict[str, str] = {}
    for label in labels:
        if normalised(label) in seen:
            raise InputError(f"label {label!r} is given twice")
        seen[normalised(label)] = label
    return labels


def _is_file(path: Path) -> bool:
    """Whether an option's value is a file; a long list of labels is no valid file name at all."""
    try:
        found = path.is_file()
    except OSError:
        return False
    if not found and path.suffix == ".txt":
        raise InputError(f"{path}: no such file of labels")
    return found


def default_labels(bundle: Bundle, personal: Personal | None = None) -> list[str]:
    """The labels to choose from where the user names none: the bundle's, and all personal ones that
    apply to it, which take the place of the same activity under another name."""

    def activity(name: str) -> int | str:
        return bundle.bank.get(normalised(name), normalised(name))

    names = {activity(name): name for name in bundle.manifest["default_labels"]}
    names |= {activity(name): name for name in (personal.names(bundle.id) if personal else [])}
    return list(names.values())


def resolve_labels(labels: list[str], bundle: Bundle, personal: Personal | None = None) -> LabelSet:
    """Prototypes of the labels, shown later in the user's own words, and the decision between them.

    A label that the bundle's bank knows (by name or alias) takes the bank's prototype; any other
    one is embedded by the bundle's own text encoder or else by the compact one, where that is
    installed. A personal label is recognised by its examples, together with the bank's prototype
    where it has one, and needs no text encoder.

    Args:
        labels: in the user's words.
        bundle: whose bank and decision they are looked up in.
        personal: the wearer's own; they go first, by their names. None uses none.

    Raises:
        InputError: a label is in no bank and no text encoder can run; two labels name the same
            activity; or a personal label cannot be used.
    """
    rows = [bundle.bank.get(normalised(label)) for label in labels]
    _check_different(labels, rows, bundle)
    examples: dict[int, list[Take]] = {}
    if personal is not None:
        for k, label in enumerate(labels):
            takes = personal.takes_of(label, bundle.id, has_text=rows[k] is not None)
            if takes:
                examples[k] = takes
    return label_set(labels, bundle, examples)


def label_set(
    labels: list[str], bundle: Bundle, examples: Mapping[int, Sequence[Take]]
) -> LabelSet:
    """`resolve_labels`, of labels that differ and with the examples (label's index -> takes) at
    hand."""
    rows = [bundle.bank.get(normalised(label)) for label in labels]
    unknown = [label for k, label in enumerate(labels) if rows[k] is None and k not in examples]
    encoder = _text_encoder(unknown, bundle) if unknown else None
    vectors, made_by = [], []
    for k, (label, row) in enumerate(zip(labels, rows, strict=True)):
        if row is not None:
            vectors.append(bundle.prototypes[row])
            made_by.append(str(bundle.manifest["label_bank"][row]["text_encoder"]))
        elif k in examples:
            # The mean of its examples stands for its text where a decision asks for one.
            mean = np.concatenate([take.embeddings for take in examples[k]]).mean(axis=0)
            vectors.append(mean / np.linalg.norm(mean))
            made_by.append(EXAMPLES)
        else:
            assert encoder is not None
            captions = [t.format(label) for t in bundle.manifest["text"]["prompt_templates"]]
            vectors.append(prototype(captions, encoder))
            made_by.append(encoder.name)
    prototypes = np.stack(vectors).astype(np.float32)
    decision = None
    if bundle.decision is not None:
        decision = LabelDecision.between(
            bundle.decision, bundle.prototypes, prototypes, rows, bundle.reference
        )
    if examples:
        check_learns(bundle)
        assert decision is not None and bundle.reference is not None
        known = [row is not None for row in rows]
        prototypes, decision = teach(
            prototypes, decision, examples, known, bundle.reference, bundle.manifest
        )
        made_by = [
            f"{maker} and {EXAMPLES}" if k in examples and maker != EXAMPLES else maker
            for k, maker in enumerate(made_by)
        ]
    return LabelSet(tuple(labels), prototypes, tuple(made_by), decision)


def check_learns(bundle: Bundle) -> None:
    """Raise InputError for a bundle that examples say nothing to."""
    if bundle.decision is None or bundle.reference is None:
        raise InputError(
            f"{bundle.folder}: personal labels need a bundle with reference embeddings and a "
            "decision; export it again with --decision, or leave them out with --no-personal"
        )


def _check_different(labels: list[str], rows: list[int | None], bundle: Bundle) -> None:
    """Refuse two labels of one activity."""
    owner: dict[int, str] = {}
    for label, row in zip(labels, rows, strict=True):
        if row is None:
            continue
        if row in owner:
            raise InputError(
                f"labels {owner[row]!r} and {label!r} are the same activity "
                f"({bundle.bank_names[row]!r}) in the bundle's bank: leave one out"
            )
        owner[row] = label


def _text_encoder(unknown: list[str], bundle: Bundle) -> TextEncoder:
    """The text encoder for labels outside the bank; says which labels come close without it."""
    try:
        # Only files that the manifest lists were verified.
        if {TEXT_ENCODER_FILE, BUNDLE_VOCAB_FILE} <= bundle.manifest["files"].keys():
            return load_bundle_text_encoder(bundle.folder)
        return load_compact_text_encoder()
    except InputError as error:
        hints = []
        for label in unknown:
            close = difflib.get_close_matches(normalised(label), bundle.bank, n=4, cutoff=0.5)
            # Spelling misses a shared word in another place ("my dog walk"): look for that too.
            words = set(normalised(label).split())
            close += [b for b in bundle.bank if words & set(b.split()) and b not in close]
            hints.append(f"  {label!r}: closest in the bank: {', '.join(close[:4]) or 'none'}")
        raise InputError(
            "not in the bundle's label bank:\n" + "\n".join(hints) + f"\n{error}"
        ) from None
