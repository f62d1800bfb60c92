"""Label -> captions: the sentences whose text embeddings the encoder is trained towards.

The sentences are data (`label_bank.toml`), so that the same words make the training targets and,
at export, the prototypes. Three kinds of text come in:

* A label that the bank knows by name or alias, always as a whole: "walking upstairs and downstairs"
  is an alias, and nothing is taken apart. If such an activity consists of others, the bank says so.
* A label that the bank lacks. Where it names several of the bank's activities, it is a composite
  (`activity_of`); else it stands for itself.
* A free sentence about one window, such as Ego-Exo4D's atomic action descriptions and expert
  commentaries, the two text sources of AURA-MFM (arXiv 2506.03174). It is its own only caption.
"""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bundle import normalised
from edge.posture import POSTURES
from firmware_bridge.errors import InputError

UNLABELLED = frozenset({"null"})
"""Corpus labels that name no activity: windows under them get no caption."""

COMPOSITE = "composite"
"""Group of the composites that the bank lacks."""

SENTENCE = "sentence"
"""Group of free sentences."""

_CONNECTIVE = re.compile(
    r",?\s+(?:and/or|and\s+then|and|or|then|while)\s+|\s*[,;/&+]\s*", re.IGNORECASE
)
"""What stands between the activities of a composite label. Not "to" ("sit to stand" is one movement
from one posture to another) and not "with" ("walking with a stick" is one activity)."""

_JOINTS = {" while ": r"\bwhile\b", " and ": r"\b(?:and(?!/or)|then)\b|[&+]"}
"""What joins the parts of a composite in plain words, by what its label has; any other: "or"."""

_MAX_WORDS, _MAX_CONNECTIVES = 16, 5
"""Of a label that is looked through for several activities; longer texts are no labels."""


@dataclass(frozen=True)
class Activity:
    """What a window may show: an entry of the label bank, a label outside of it, or a sentence."""

    name: str
    group: str
    aliases: tuple[str, ...]
    description: str
    parts: tuple[str, ...] = ()
    """Names of the bank's activities that a window of this one may show as well: those that a
    composite's name says. Empty for plain activities."""

    posture: str | None = None
    """One of `edge.posture.POSTURES` where the words leave no doubt of it; None where they do, or
    where the posture changes."""

    def captions(self, placement: str | None = None) -> list[str]:
        """The sentences about this activity.

        Args:
            placement: None for the sentences that mention none: every wording in every template,
                and the description. A corpus' placement for those that mention it; there are none
                about a free sentence, which stays as it was written.
        """
        wordings = (self.name, *self.aliases)
        if self.group == SENTENCE:
            return [self.name] if placement is None else []
        if placement is None:
            captions = [t.format(w) for w in wordings for t in prompt_templates()]
            return [*captions, self.description]
        where = placement_phrase(placement)
        templates = _bank_file()["templates"]["placement"]
        return [t.format(activity=w, placement=where) for w in wordings for t in templates]


@cache
def _bank_file() -> dict[str, Any]:
    path = Path(__file__).parent / "label_bank.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def prompt_templates() -> tuple[str, ...]:
    """What an activity's name and aliases are put into where no placement is mentioned."""
    return tuple(_bank_file()["templates"]["activity"])


@cache
def placement_phrase(placement: str) -> str:
    """A corpus' placement as a phrase: "trouser pocket" -> "in the trouser pocket"."""
    known = {normalised(word): phrase for word, phrase in _bank_file()["placements"].items()}
    unknown: str = _bank_file()["templates"]["unknown_placement"]
    return known.get(normalised(placement)) or unknown.format(normalised(placement))


@cache
def label_bank() -> tuple[Activity, ...]:
    """The activities of `label_bank.toml`, in file order."""
    parts = _bank_file()["parts"]
    return tuple(
        Activity(
            r["name"],
            r["group"],
            tuple(r["aliases"]),
            r["description"],
            tuple(parts.get(r["name"], ())),
            checked_posture(r.get("posture"), f"label_bank.toml, {r['name']!r}"),
        )
        for r in _bank_file()["activity"]
    )


def checked_posture(posture: Any, of: str) -> str | None:
    """The `posture` that a file of activities gives one of them.

    Raises:
        InputError: it is given, and is none of `POSTURES`.
    """
    if posture is None:
        return None
    if posture in POSTURES:
        return str(posture)
    raise InputError(f"{of}: posture {posture!r} is none of {', '.join(POSTURES)}")


def with_trained(
    bank: Sequence[Activity], trained: Sequence[str]
) -> tuple[tuple[Activity, ...], list[int]]:
    """A bank that has all that an encoder was trained on, and the rows of that.

    What the bank lacks (a corpus' label that stands for itself, a composite) comes after it, in
    group "other", under those of its wordings that mean nothing else yet.

    Args:
        bank: activities, each with a name of its own.
        trained: names of activities, as `training.run_folder.provenance` has them.
    """
    activities = list(bank)
    row_of = {activity.name: row for row, activity in enumerate(bank)}
    known = {normalised(w) for a in bank for w in (a.name, *a.aliases)}
    rows = []
    for name in trained:
        activity = activity_of(name)
        if activity.name not in row_of:
            aliases = tuple(w for w in activity.aliases if normalised(w) not in known)
            row_of[activity.name] = len(activities)
            activities.append(replace(activity, group="other", aliases=aliases))
            known |= {normalised(w) for w in (activity.name, *aliases)}
        rows.append(row_of[activity.name])
    return tuple(activities), list(dict.fromkeys(rows))


@cache
def _by_wording() -> dict[str, Activity]:
    return {normalised(w): a for a in label_bank() for w in (a.name, *a.aliases)}


def activity_of(label: str) -> Activity:
    """The activity that a corpus' label means.

    * A label that is a wording of the bank is that activity, connectives in it or not.
    * Else a label that can be taken apart at "and", "or", "and/or", "then", "while", "," ";" "/"
      "&" and "+" so that every piece is a wording of the bank is a composite of these: the
      "running" and the "cycling" of "running or cycling". A piece may borrow the first words of
      the first one or the last words of the last one: "opening and closing a drawer",
      "turning left and right". The fewest pieces, and the longest pieces, win.
    * Else it stands for itself, as "arts and sciences" does.

    A composite's captions are of its own wording and of its parts' names, joined by "while", "and"
    or "or" as the label does, never of a part alone: of a window of "running/cycling" nobody knows
    which of them it shows.
    """
    found = _by_wording().get(normalised(label))
    return found or _outside_the_bank(normalised(label))


@cache
def _outside_the_bank(label: str) -> Activity:
    parts = next(_divisions(label), ())
    if len(parts) == 1:  # one activity in two wordings, such as "jog/jogging"
        return parts[0]
    if not parts:
        return Activity(label, "other", (), label)
    names = tuple(part.name for part in parts)
    joint = next((word for word, said in _JOINTS.items() if re.search(said, label)), " or ")
    joined = joint.join(names)
    description = joint.join(part.description for part in parts)
    within = dict.fromkeys(name for part in parts for name in (part.name, *part.parts))
    aliases = (joined,) * (joined != label)
    postures = {part.posture for part in parts}
    posture = postures.pop() if len(postures) == 1 else None
    return Activity(label, COMPOSITE, aliases, description, tuple(within), posture)


def _divisions(label: str) -> Iterator[tuple[Activity, ...]]:
    """The ways to read a label as several activities of the bank, fewest pieces first."""
    connectives = list(_CONNECTIVE.finditer(label))
    if len(label.split()) > _MAX_WORDS or len(connectives) > _MAX_CONNECTIVES:
        return
    for n in range(1, len(connectives) + 1):
        for chosen in combinations(connectives, n):
            starts = [0, *(c.end() for c in chosen)]
            ends = [*(c.start() for c in chosen), len(label)]
            pieces = [label[a:b].split() for a, b in zip(starts, ends, strict=True)]
            found = [_of_piece(pieces, at) for at in range(len(pieces))]
            if None not in found:
                yield tuple(dict.fromkeys(a for a in found if a is not None))


def _of_piece(pieces: Sequence[list[str]], at: int) -> Activity | None:
    """The bank's activity for one piece of a label, with as many borrowed words as fit."""
    heads = range(len(pieces[0]) if at else 1)
    tails = range(len(pieces[-1]) if at < len(pieces) - 1 else 1)
    borrowings = [(head, tail) for head in heads for tail in tails]
    for head, tail in sorted(borrowings, key=sum, reverse=True):
        last = pieces[-1]
        words = pieces[0][:head] + pieces[at] + last[len(last) - tail :]
        if found := _by_wording().get(" ".join(words)):
            return found
    return None


def sentence(text: str) -> Activity:
    """A free sentence about a window; its only caption is the sentence itself.

    Sentences may be longer than a text encoder reads; each cuts them where its own input ends.
    For CLIP that is 77 tokens, start and end of text included: AURA-MFM (arXiv 2506.03174) cuts
    expert commentaries there. open_clip's tokenizer does so by itself, where OpenAI's raises. The
    compact encoder, which was not made for long texts either, reads 128 word pieces.
    """
    return Activity(" ".join(text.split()), SENTENCE, (), "")


def compatible(a: Activity, b: Activity) -> bool:
    """Whether one window may show both: they are the same, or one is a part of the other.

    Two composites that share a part are not: where an annotator tells "walking upstairs and
    downstairs slowly" from the same "quickly", training should too. Nothing is known of two
    different sentences, so they count as different.
    """
    return a.name == b.name or a.name in b.parts or b.name in a.parts


def compatibility(activities: Sequence[Activity]) -> NDArray[np.bool_]:
    """(A, A) whether two activities are `compatible`: symmetric, True on the diagonal."""
    rows: dict[str, list[int]] = defaultdict(list)
    for i, activity in enumerate(activities):
        rows[activity.name].append(i)
    matrix = np.zeros((len(activities), len(activities)), dtype=bool)
    for i, activity in enumerate(activities):
        for name in (activity.name, *activity.parts):
            matrix[i, rows.get(name, [])] = True
    return matrix | matrix.T
