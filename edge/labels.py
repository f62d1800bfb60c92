"""The user's labels -> prototypes: from the bundle's bank, else from the text encoder."""

from __future__ import annotations

import difflib
from pathlib import Path

import numpy as np

from edge.bundle import Bundle, normalised
from edge.decision import LabelDecision
from edge.text import (
    BUNDLE_VOCAB_FILE,
    TEXT_ENCODER_FILE,
    TextEncoder,
    load_bundle_text_encoder,
    load_compact_text_encoder,
)
from edge.zeroshot import LabelSet, prototype
from firmware_bridge.errors import InputError


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


def resolve_labels(labels: list[str], bundle: Bundle) -> LabelSet:
    """Prototypes of the labels, shown later in the user's own words, and the decision between them.

    A label that the bundle's bank knows (by name or alias) takes the bank's prototype; any other
    one is embedded by the bundle's own text encoder or else by the compact one, where that is
    installed.

    Raises:
        InputError: a label is in no bank and no text encoder can run; or two labels name the same
            activity.
    """
    unknown = [label for label in labels if normalised(label) not in bundle.bank]
    encoder = _text_encoder(unknown, bundle) if unknown else None
    vectors, made_by = [], []
    rows = [bundle.bank.get(normalised(label)) for label in labels]
    owner: dict[int, str] = {}
    for label, row in zip(labels, rows, strict=True):
        if row is None:
            assert encoder is not None
            captions = [t.format(label) for t in bundle.manifest["text"]["prompt_templates"]]
            vectors.append(prototype(captions, encoder))
            made_by.append(encoder.name)
            continue
        if row in owner:
            raise InputError(
                f"labels {owner[row]!r} and {label!r} are the same activity "
                f"({bundle.bank_names[row]!r}) in the bundle's bank: leave one out"
            )
        owner[row] = label
        vectors.append(bundle.prototypes[row])
        made_by.append(str(bundle.manifest["label_bank"][row]["text_encoder"]))
    prototypes = np.stack(vectors).astype(np.float32)
    decision = None
    if bundle.decision is not None:
        decision = LabelDecision.between(
            bundle.decision, bundle.prototypes, prototypes, rows, bundle.reference
        )
    return LabelSet(tuple(labels), prototypes, tuple(made_by), decision)


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
