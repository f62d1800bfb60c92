"""RealWorld (2016): phones and a watch at seven places at once; 15 subjects, 8 activities.

Source: https://www.uni-mannheim.de/dws/research/projects/activity-recognition/dataset/
    dataset-realworld/ (realworld2016_dataset.zip); Sztyler and Stuckenschmidt, PerCom 2016.
Files: `probandN/data/acc_ACTIVITY_csv.zip` and `gyr_ACTIVITY_csv.zip`, which hold
    `acc_ACTIVITY_PLACE.csv` and `Gyroscope_ACTIVITY_PLACE.csv` with the columns
    id, attr_time (ms since 1970), attr_x, attr_y, attr_z. About 50 Hz. Zipped or unpacked.
Units: m/s^2 with gravity (Android's accelerometer) and rad/s.
Axes: Android's, turned as each device was worn. Taken as they are.
Licence: free for research, to be cited; no licence text comes with the files (not verified).
Traps: some activities were recorded in parts (zips within the zip, `_2`, `_3` in the names,
    numbered differently for the two sensors): parts are told apart by their time stamps, not by
    their names. A device may lack a sensor for an activity. The magnetometer, GPS, light and sound
    files beside them are not read.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.errors import InputError
from training.importers.form import Dataset, Recording, Segment, Skipped, csv_columns, pieces

_RATE_HZ = 50.0

_LABELS = {
    "climbingdown": "descending stairs",
    "climbingup": "ascending stairs",
    "jumping": "jumping",
    "lying": "lying",
    "running": "running",
    "sitting": "sitting",
    "standing": "standing",
    "walking": "walking",
}

_PLACEMENTS = {
    "chest": "chest",
    "forearm": "forearm",
    "head": "head",
    "shin": "shin",
    "thigh": "thigh",
    "upperarm": "upper arm",
    "waist": "waist",
}

_COLUMNS = dict.fromkeys(("attr_time", "attr_x", "attr_y", "attr_z"), float)
_OURS = re.compile(r"(acc|gyr|Gyroscope)_.*\.(csv|zip)")
_CSV = re.compile(r"(acc|gyr|Gyroscope)_([a-z]+)(?:_\d+)?_([a-z]+)\.csv")

_Samples = NDArray[np.float64]
"""(N, 4): stamp in s, three axes."""


def read(src: Path, skipped: Skipped) -> Iterator[Recording]:
    """One recording for each place, activity and stretch without a gap."""
    for folder in sorted(src.rglob("proband[0-9]*/data"), key=_number):
        for (activity, place), sensors in sorted(_tables(folder).items()):
            where = folder / f"{activity}, {place}"
            if len(sensors) < 2:
                skipped.note(where, f"activity at one place without {_other(sensors)}")
                continue
            acc, gyro = (np.concatenate(sensors[s]) for s in ("acc", "gyr"))
            start_s = acc[0, 0]  # stamps since 1970 leave too few digits for the grid
            for piece in pieces(
                acc[:, 0] - start_s,
                acc[:, 1:],
                gyro[:, 1:],
                _RATE_HZ,
                gyro_t_s=gyro[:, 0] - start_s,
            ):
                yield Recording(
                    subject=folder.parent.name.removeprefix("proband"),
                    session=activity,
                    placement=_PLACEMENTS[place],
                    rate_hz=_RATE_HZ,
                    acc_mps2=piece.acc_mps2,
                    gyro_rads=piece.gyro_rads,
                    segments=(Segment(0, len(piece), _LABELS[activity]),),
                    source=where,
                )


def _number(folder: Path) -> int:
    return int(folder.parent.name.removeprefix("proband"))


def _other(sensors: dict[str, list[_Samples]]) -> str:
    return "gyroscope" if "acc" in sensors else "accelerometer"


def _tables(folder: Path) -> dict[tuple[str, str], dict[str, list[_Samples]]]:
    """(activity, place) -> sensor -> its parts, of one subject."""
    found: dict[tuple[str, str], dict[str, list[_Samples]]] = defaultdict(lambda: defaultdict(list))
    for file in sorted(folder.rglob("*")):
        if not file.is_file() or not _OURS.fullmatch(file.name):
            continue
        for path, data in _unzipped(file, file.read_bytes()):
            named = _CSV.fullmatch(path.name)
            if named is None or named[2] not in _LABELS or named[3] not in _PLACEMENTS:
                raise InputError(
                    f"{path}: unknown activity or place; expected acc_ACTIVITY_PLACE.csv with "
                    f"one of {', '.join(_LABELS)} and one of {', '.join(_PLACEMENTS)}"
                )
            columns = csv_columns(path, _COLUMNS, data=data)
            samples = np.stack([columns[c] for c in _COLUMNS], axis=1)
            samples[:, 0] /= 1000
            sensor = "acc" if named[1] == "acc" else "gyr"
            found[named[2], named[3]][sensor].append(samples)
    return found


def _unzipped(path: Path, data: bytes) -> Iterator[tuple[Path, bytes]]:
    """The CSV files in a file, a zip or zips within a zip; paths continue into the zip."""
    if path.suffix == ".csv":
        yield path, data
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in sorted(archive.namelist()):
                inner = path / member
                if _OURS.fullmatch(inner.name):
                    yield from _unzipped(inner, archive.read(member))
    except zipfile.BadZipFile as error:
        raise InputError(f"{path}: not a zip file ({error})") from None


DATASET = Dataset(
    name="realworld",
    title="RealWorld 2016 (phones and a watch at seven places at once; 15 subjects, 8 activities)",
    cite="Sztyler and Stuckenschmidt, PerCom 2016",
    licence="free for research, to be cited; no licence text in the copy (not verified)",
    units="m/s^2 and rad/s as they are; gravity included; axes of the device as worn",
    read=read,
    note="50 Hz; one label per activity recording; the devices' clocks are not synchronised",
)
