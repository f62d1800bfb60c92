"""SisFall: one unit at the waist; 23 young and 15 elderly adults, 19 activities, 15 falls.

Source: http://sistemic.udea.edu.co/en/investigacion/proyectos/english-falls/ (SisFall_dataset.zip);
    Sucerquia, Lopez and Vargas-Bonilla, Sensors 17(1):198, 2017.
Files: `SA01/D01_SA01_R01.txt` (SE01... for the elderly): activity, subject, trial. 200 lines a
    second of nine integers, commas between them, a semicolon at the end: ADXL345 accelerometer,
    ITG3200 gyroscope, MMA8451Q accelerometer (not imported: the same motion once more).
Units: counts. The readme's conversion is (2 x range) / 2^bits: ADXL345 +-16 g in 13 bits,
    ITG3200 +-2000 deg/s in 16 bits. Gravity included.
Axes: as worn; the readme's drawing has y along the body. Taken as they are.
Licence: public research release; terms not stated in the files.
Traps: one label a trial, falls too, which hold the approach, the fall and lying still. A last line
    may be cut off. The ITG3200's data sheet says 14.375 counts per deg/s, which is 14 % more than
    the readme's formula; the readme is followed, as everyone does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from firmware_bridge.errors import InputError
from firmware_bridge.samples import ACC_UNITS_MPS2, GYRO_UNITS_RADS
from training.importers.form import Dataset, Recording, Segment, Skipped, table

_RATE_HZ = 200.0
_ACC_COUNT_MPS2 = 2 * 16 / 2**13 * ACC_UNITS_MPS2["g"]
_GYRO_COUNT_RADS = 2 * 2000 / 2**16 * GYRO_UNITS_RADS["deg/s"]

_LABELS = {
    "D01": "walking slowly",
    "D02": "walking quickly",
    "D03": "jogging slowly",
    "D04": "jogging quickly",
    "D05": "walking upstairs and downstairs slowly",
    "D06": "walking upstairs and downstairs quickly",
    "D07": "slowly sitting in a half-height chair and getting up slowly",
    "D08": "quickly sitting in a half-height chair and getting up quickly",
    "D09": "slowly sitting in a low chair and getting up slowly",
    "D10": "quickly sitting in a low chair and getting up quickly",
    "D11": "trying to get up and collapsing into a chair",
    "D12": "lying down slowly and sitting again",
    "D13": "lying down quickly and sitting again",
    "D14": "turning onto the side while lying",
    "D15": "slowly squatting with bent knees and getting up",
    "D16": "slowly bending without bending knees and getting up",
    "D17": "getting into and out of a car",
    "D18": "stumbling while walking",
    "D19": "jumping gently to reach a high object",
    "F01": "forward fall while walking (slip)",
    "F02": "backward fall while walking (slip)",
    "F03": "lateral fall while walking (slip)",
    "F04": "forward fall while walking (trip)",
    "F05": "forward fall while jogging (trip)",
    "F06": "vertical fall while walking (fainting)",
    "F07": "fall while walking, hands on a table (fainting)",
    "F08": "forward fall when getting up",
    "F09": "lateral fall when getting up",
    "F10": "forward fall when sitting down",
    "F11": "backward fall when sitting down",
    "F12": "lateral fall when sitting down",
    "F13": "forward fall while sitting (fainting)",
    "F14": "backward fall while sitting (fainting)",
    "F15": "lateral fall while sitting (fainting)",
}


def read(src: Path, skipped: Skipped) -> Iterator[Recording]:
    """One recording a trial."""
    for path in sorted(src.rglob("[DF]*_S[AE]*_R*.txt")):
        named = re.fullmatch(r"([DF]\d\d)_(S[AE]\d\d)_R\d\d", path.stem)
        if named is None or named[1] not in _LABELS:
            raise InputError(f"{path}: unknown activity; expected D01 to D19 or F01 to F15")
        complete, _, rest = path.read_bytes().rpartition(b";")
        if rest.strip():
            skipped.note(path, "last line, cut off")
        counts = table(path, 9, ",", use=range(6), data=complete.replace(b";", b""))
        yield Recording(
            subject=named[2],
            session=path.stem,
            placement="waist",
            rate_hz=_RATE_HZ,
            acc_mps2=counts[:, :3] * _ACC_COUNT_MPS2,
            gyro_rads=counts[:, 3:] * _GYRO_COUNT_RADS,
            segments=(Segment(0, len(counts), _LABELS[named[1]]),),
            source=path,
        )


DATASET = Dataset(
    name="sisfall",
    title="SisFall (waist, 38 subjects, young and elderly; 19 daily activities, 15 falls)",
    cite="Sucerquia, Lopez and Vargas-Bonilla, Sensors 17(1):198, 2017",
    licence="public research release; terms not stated in the files",
    units="counts x 2*16/2^13 g (ADXL345), x 2*2000/2^16 deg/s (ITG3200); gravity included",
    read=read,
    note="200 Hz; one label per trial, falls too (approach, fall, lying)",
)
