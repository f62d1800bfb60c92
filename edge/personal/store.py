"""Personal labels: what a wearer showed, kept in a folder of theirs apart from any bundle.

One file a label, `<label>-<hash of it>.npz`, a zip that `unzip -p FILE label.json` and `numpy.load`
read:

* `label.json`: format_version, label, bundle_id (whose encoder made the embeddings) and of each
  take: enrolled_utc, source, placement.
* of take k: `signal_k` (6, n) float32, the 200 Hz grid of the examples in m/s^2 and rad/s with NaN
  where missing, so that another bundle can embed them again; `embeddings_k` (N, D), `face_deg_k`
  and `tilt_deg_k` (N,) float32 of its valid windows, one a second.

Files are written whole and then put in place, readable by their owner alone; one damaged file is
one label lost, which is said when that label is asked for.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

from edge.bundle import Bundle, normalised
from edge.personal.examples import Take
from edge.posture import UNKNOWN
from edge.spec import SIGNAL
from edge.window import MAX_MISSING, every_hop
from firmware_bridge.errors import AuraError, InputError

FORMAT_VERSION = 1
_DETAILS = "label.json"
_ARRAYS = ("signal", "embeddings", "face_deg", "tilt_deg")
_HOP_S = 1.0
"""Between the windows of a take."""

_DAMAGE = (
    EOFError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading a file of other content raises."""

Signal = NDArray[np.float32]


def personal_folder() -> Path:
    """Where personal labels are kept."""
    return platformdirs.user_data_path("aura-edge") / "personal"


@dataclass(frozen=True)
class Shown:
    """One take as it is kept: the signal beside what was made of it."""

    take: Take

    signal: Signal
    """(6, n) of the 200 Hz grid."""

    enrolled_utc: str
    """ISO 8601."""

    source: str
    """`ble:Polar Sense 1234`, `replay:walk.csv`."""

    @property
    def seconds(self) -> float:
        """Length of the signal."""
        return float(self.signal.shape[1] / SIGNAL.rate_hz)


@dataclass(frozen=True)
class PersonalLabel:
    """A label and its takes, one or more, the oldest first."""

    name: str
    bundle_id: str
    shown: tuple[Shown, ...]

    @property
    def takes(self) -> list[Take]:
        """What `edge.personal.examples.teach` takes."""
        return [shown.take for shown in self.shown]

    @property
    def seconds(self) -> float:
        """Of signal in all takes."""
        return sum(shown.seconds for shown in self.shown)


def valid_windows(signal: Signal) -> Iterator[tuple[int, Signal]]:
    """The windows of a take that lack at most 20 %, one a second.

    Args:
        signal: (6, n) of the 200 Hz grid.

    Yields:
        Where it begins in the signal, and its (6, 1000).
    """
    for start, stop in every_hop(_HOP_S):
        if stop > signal.shape[1]:
            return
        window = signal[:, start:stop]
        if np.isnan(window[0]).mean() <= MAX_MISSING:
            yield start, np.ascontiguousarray(window)


def embedded_again(label: PersonalLabel, bundle: Bundle) -> PersonalLabel:
    """The same examples, embedded by another bundle's encoder; the angles depend on none."""

    def again(shown: Shown) -> Shown:
        windows = [window for _, window in valid_windows(shown.signal)]
        embeddings = np.stack([bundle.encoder.embed(window) for window in windows])
        return replace(shown, take=replace(shown.take, embeddings=embeddings))

    return replace(label, bundle_id=bundle.id, shown=tuple(map(again, label.shown)))


class PersonalStore:
    """The personal labels in a folder, which need not exist.

    Labels are the same where they differ in case, spaces, _ and - alone. Methods raise InputError
    where a file is damaged or a label is not there, and AuraError where nothing can be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path_of(self, label: str) -> Path:
        """The file that a label is kept in, whether or not it is there."""
        name = normalised(label)
        letters = "".join(c if c.isascii() and c.isalnum() else "-" for c in name)[:40].strip("-")
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        return self.folder / f"{letters or 'label'}-{digest}.npz"

    def find(self, label: str) -> PersonalLabel | None:
        """A label by its name; None if it is no personal one."""
        path = self.path_of(label)
        return _read(path) if path.exists() else None

    def paths(self) -> list[Path]:
        """The files of all labels, by name."""
        return sorted(self.folder.glob("*.npz"))

    def read(self, path: Path) -> PersonalLabel:
        """One of the files."""
        return _read(path)

    def save(self, label: PersonalLabel) -> None:
        """Put a label in the place of what is there under its name, if there is any."""
        _write(self.path_of(label.name), label)

    def rename(self, old: str, new: str) -> None:
        """Give a label another name that none has."""
        label = self._existing(old)
        if self.path_of(new) == self.path_of(old):
            self.save(replace(label, name=new))
            return
        if self.path_of(new).exists():
            raise InputError(f"there is a personal label {new!r} already; delete it first")
        self.save(replace(label, name=new))
        self.delete(old)

    def delete(self, label: str) -> None:
        """Erase a label and its examples; a damaged one too."""
        path = self.path_of(label)
        try:
            path.unlink()
        except FileNotFoundError:
            raise self._absent(label) from None
        except OSError as error:
            raise AuraError(f"{path}: cannot be deleted ({error})") from None

    def _existing(self, label: str) -> PersonalLabel:
        found = self.find(label)
        if found is None:
            raise self._absent(label)
        return found

    def _absent(self, label: str) -> InputError:
        return InputError(
            f"no personal label {label!r} in {self.folder}; `edge-enroll list` shows those there"
        )


@dataclass(frozen=True)
class Personal:
    """The personal labels as a run uses them."""

    store: PersonalStore

    segment: str
    """Body segment that the device is worn on (`edge.posture.SEGMENTS`)."""

    say: Callable[[str], None]
    """Tells the user of a label that does not apply, and why."""

    def takes_of(self, label: str, bundle_id: str, has_text: bool) -> list[Take]:
        """The examples of a label that apply; none where it is no personal one.

        Not those embedded by another bundle. Of a label whose text is known, not those from
        another part of the body either: there the text does better without them.

        Raises:
            InputError: its file is damaged.
        """
        found = self.store.find(label)
        if found is None:
            return []
        if found.bundle_id != bundle_id:
            self.say(
                f"note: the examples of personal label {label!r} were made with bundle "
                f"{found.bundle_id}, so they do not apply; `edge-enroll renew` mends that"
            )
            return []
        here = [
            take
            for take in found.takes
            if take.segment == self.segment or UNKNOWN in (take.segment, self.segment)
        ]
        if here:
            return here
        worn = ", ".join(sorted({take.segment for take in found.takes}))
        what = "its text alone counts" if has_text else "it may be recognised badly"
        self.say(
            f"note: the examples of personal label {label!r} are of a device worn on the {worn}, "
            f"not the {self.segment}: {what}"
        )
        return [] if has_text else found.takes

    def names(self, bundle_id: str) -> list[str]:
        """All personal labels of this bundle, by name; others, and damaged files, are noted."""
        names = []
        for path in self.store.paths():
            try:
                label = self.store.read(path)
            except InputError as error:
                self.say(f"note: {error}")
                continue
            if label.bundle_id == bundle_id:
                names.append(label.name)
            else:
                self.say(
                    f"note: personal label {label.name!r} was made with bundle {label.bundle_id} "
                    "and is left out; `edge-enroll renew` mends that"
                )
        return names


def _write(path: Path, label: PersonalLabel) -> None:
    details = {
        "format_version": FORMAT_VERSION,
        "label": label.name,
        "bundle_id": label.bundle_id,
        "takes": [
            {
                "enrolled_utc": shown.enrolled_utc,
                "source": shown.source,
                "placement": shown.take.placement,
            }
            for shown in label.shown
        ],
    }
    partial: Path | None = None
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Readable by its owner only from the start, as mkstemp makes files.
        handle, name = tempfile.mkstemp(prefix=".", suffix=".partial", dir=path.parent)
        partial = Path(name)
        with os.fdopen(handle, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(_DETAILS, json.dumps(details, indent=1, ensure_ascii=False))
                for k, shown in enumerate(label.shown):
                    for array, values in _arrays_of(shown).items():
                        archive.writestr(f"{array}_{k}.npy", _npy(values))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        if partial is not None:
            partial.unlink(missing_ok=True)
        raise AuraError(
            f"{path}: cannot be written ({error}); what was there before is unchanged"
        ) from None


def _arrays_of(shown: Shown) -> Mapping[str, NDArray[np.float32]]:
    take = shown.take
    values = (shown.signal, take.embeddings, take.face_deg, take.tilt_deg)
    return dict(zip(_ARRAYS, values, strict=True))


def _npy(values: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, values.astype(np.float32), allow_pickle=False)
    return buffer.getvalue()


def _read(path: Path) -> PersonalLabel:
    try:
        with zipfile.ZipFile(path) as archive:
            details: dict[str, Any] = json.loads(archive.read(_DETAILS))
            version = details["format_version"]
            if version != FORMAT_VERSION:
                raise InputError(
                    f"{path}: personal label of format {version}, this runtime reads "
                    f"{FORMAT_VERSION}; update aura-edge"
                )
            shown = tuple(_shown(archive, k, take) for k, take in enumerate(details["takes"]))
            if not shown:
                raise ValueError("it holds no take")
            return PersonalLabel(str(details["label"]), str(details["bundle_id"]), shown)
    except (*_DAMAGE, OSError) as error:
        raise InputError(
            f"{path}: damaged ({error}); put a copy in its place, or delete it and enrol the label "
            "again. edge-run does without personal labels with --no-personal"
        ) from None


def _shown(archive: zipfile.ZipFile, k: int, details: dict[str, Any]) -> Shown:
    signal, embeddings, face_deg, tilt_deg = (
        np.lib.format.read_array(io.BytesIO(archive.read(f"{name}_{k}.npy")), allow_pickle=False)
        for name in _ARRAYS
    )
    n = len(embeddings)
    good = signal.ndim == embeddings.ndim == 2 and len(signal) == len(SIGNAL.channels)
    if not (good and n and face_deg.shape == tilt_deg.shape == (n,)):
        raise ValueError(f"the arrays of take {k} do not fit together")
    take = Take(embeddings, face_deg, tilt_deg, details["placement"])
    return Shown(take, signal, details["enrolled_utc"], details["source"])
