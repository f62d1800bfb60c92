"""Importers: the original files of public data sets -> corpora in the project's form."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from firmware_bridge.errors import InputError

if TYPE_CHECKING:
    from training.importers.form import Dataset

DATASETS = {
    "pamap2": "wrist, chest and ankle; 9 subjects, 18 activities",
    "hapt": "waist phone; 30 subjects, 12 activities (benchmark)",
    "uci_har": "HAPT's subjects in windows, joined again; 6 activities (benchmark)",
    "motionsense": "trouser pocket phone; 24 subjects, 6 activities",
    "mhealth": "chest, right wrist and left ankle, no gyroscope; 10 subjects, 12 activities",
    "wisdm": "pocket phone and wrist watch; 51 subjects, 18 activities",
    "dsads": "torso, arms and legs; 8 subjects, 19 activities",
    "realworld": "phones and watches at seven places; 15 subjects, 8 activities",
    "hhar": "phones and watches of several makers; 9 subjects, 6 activities",
    "usc_had": "hip; 14 subjects, 12 activities",
    "sisfall": "waist; 38 subjects, 19 activities and 15 kinds of fall",
    "utd_mhad": "right wrist or thigh; 8 subjects, 27 actions",
    "opportunity": "body-worn units in a kitchen; 4 subjects, locomotion and gestures",
    "ego_exo4d": "head (Aria glasses), with free sentences; needs a licence of your own",
    "ego4d": "head (cameras with IMU), with narrations; needs a licence of your own",
}
"""Name of a data set, its module here and its corpus folder -> one line about it."""


def dataset(name: str) -> Dataset:
    """The importer of a data set, imported when asked for.

    Raises:
        InputError: there is none of this name.
    """
    if name not in DATASETS:
        raise InputError(f"no data set {name!r}; there are: {', '.join(DATASETS)}")
    found: Dataset = import_module(f"training.importers.{name}").DATASET
    return found
