"""OPPORTUNITY: five Xsens units in a jacket (back, upper arms, forearms); 4 subjects, locomotion.

Source: https://archive.ics.uci.edu/dataset/226/opportunity+activity+recognition; Chavarriaga et
    al., Pattern Recognition Letters 34(15), 2013.
Files: `dataset/S1-ADL1.dat` to `S4-Drill.dat`: 30 lines a second of 250 numbers with blanks
    between them and no header. Columns, from 1: 1 time in ms; from 38 on, thirteen for each of
    BACK, RUA, RLA, LUA, LLA: accelerometer 3, gyroscope 3, magnetometer 3, quaternion 4;
    244 locomotion (0 none, 1 stand, 2 walk, 4 sit, 5 lie); 245 to 250 gestures and objects.
Units: column_names.txt says of the accelerometers "round(original / 9.8 * 1000), unit = milli g",
    so that 9.8e-3 undoes it exactly, and of the gyroscopes "round(original * 1000), unit =
    unknown". Xsens units give rad/s, which fits a moving arm; deg/s would be 57 times too slow.
    Gravity included.
Axes: as worn in the jacket, taken as they are.
Licence: UCI, believed CC BY 4.0 (not verified).
Traps: NaN where the radio lost data, up to minutes. The shoes' units report in frames of their own
    and the twelve bare accelerometers have no gyroscope; both are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from firmware_bridge.errors import InputError
from firmware_bridge.samples import TIME_UNITS_S
from training.importers.form import (
    Dataset,
    Recording,
    Skipped,
    labels_of,
    pieces,
    segments_of,
    table,
)

_RATE_HZ = 30.0
_COLUMNS = 250
_TIME, _LOCOMOTION = 0, 243
_ACC_COUNT_MPS2 = 9.8e-3
_GYRO_COUNT_RADS = 1e-3

_FIRST_COLUMN = {
    "back": 37,
    "right upper arm": 50,
    "right forearm": 63,
    "left upper arm": 76,
    "left forearm": 89,
}
"""Placement -> index of the unit's first column (from 0); its gyroscope follows."""

_LABELS = {0: None, 1: "standing", 2: "walking", 4: "sitting", 5: "lying"}


def read(src: Path, skipped: Skipped) -> Iterator[Recording]:
    """One recording for each session, unit and stretch without a gap, worn at once."""
    unit_columns = [c + i for c in _FIRST_COLUMN.values() for i in range(6)]
    for path in sorted(src.rglob("S*-*.dat")):
        named = re.fullmatch(r"(S\d)-(ADL\d|Drill)", path.stem)
        if named is None:
            raise InputError(f"{path}: unknown session; expected S1-ADL1.dat to S4-Drill.dat")
        rows = table(path, _COLUMNS, use=[_TIME, _LOCOMOTION, *unit_columns])
        t_s = rows[:, 0] * TIME_UNITS_S["ms"]
        labels = labels_of(path, rows[:, 1], _LABELS)
        for number, placement in enumerate(_FIRST_COLUMN):
            unit = rows[:, 2 + 6 * number : 8 + 6 * number]
            lost = int(np.isnan(unit).any(axis=1).sum())
            if lost:
                skipped.note(path, f"sample of the {placement} lost by the radio", lost)
            acc, gyro = unit[:, :3] * _ACC_COUNT_MPS2, unit[:, 3:] * _GYRO_COUNT_RADS
            for piece in pieces(t_s, acc, gyro, _RATE_HZ):
                yield Recording(
                    subject=named[1],
                    session=named[2],
                    placement=placement,
                    rate_hz=_RATE_HZ,
                    acc_mps2=piece.acc_mps2,
                    gyro_rads=piece.gyro_rads,
                    segments=segments_of(t_s, labels, piece, _RATE_HZ),
                    source=path,
                )


DATASET = Dataset(
    name="opportunity",
    title="OPPORTUNITY (Xsens units at back, upper arms, forearms; 4 subjects, locomotion)",
    cite="Chavarriaga et al., Pattern Recognition Letters 34(15), 2013",
    licence="UCI, believed CC BY 4.0 (not verified)",
    units="milli g of 9.8 m/s^2, gravity included; milli rad/s (believed: the files say "
    '"unknown"); axes as worn',
    read=read,
    note="30 Hz; labels are locomotion only; gaps where the radio lost data",
)
