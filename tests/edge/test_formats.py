"""What apps and devices export: each layout as its app writes it, both signs, what is refused."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from edge.recording import UnitOptions, open_recording
from firmware_bridge.errors import InputError
from firmware_bridge.samples import STANDARD_GRAVITY_MPS2
from tests.edge.test_recording import all_samples

G, DEG = STANDARD_GRAVITY_MPS2, 180 / np.pi
RATE_HZ = 50.0
START = datetime(2026, 1, 31, 12, 34, 56, 789_000)


class Truth(NamedTuple):
    """What a device measured, as functions of time, so that each sensor may have its own times."""

    gravity: np.ndarray
    """(3,) m/s^2 at rest, pointing up."""

    def motion(self, t: np.ndarray) -> np.ndarray:
        """Acceleration without gravity, (n, 3)."""
        return np.column_stack([np.sin(9 * t), 0.5 * np.cos(5 * t), 2 * np.sin(7 * t)])

    def acc(self, t: np.ndarray) -> np.ndarray:
        return self.gravity + self.motion(t)

    def gyro(self, t: np.ndarray) -> np.ndarray:
        return np.column_stack([np.cos(6 * t), 0.3 * np.sin(8 * t), -0.2 * np.cos(4 * t)])


UP = Truth(np.array([0.0, 0.0, G]))
TIMES = np.arange(300) / RATE_HZ
LATER = TIMES + 0.007
"""The gyroscope's times where it has its own."""


def text(header: str, columns: list[Any], delimiter: str = ",", preamble: str = "") -> str:
    """A table as apps write it; a column is a list, an array (n,) or several of them (n, k)."""
    rows: list[list[object]] = [[] for _ in columns[0]]
    for column in columns:
        for row, cells in zip(rows, np.asarray(column).tolist(), strict=True):
            row.extend(cells if isinstance(cells, list) else [cells])
    lines = [delimiter.join(map(_cell, row)) for row in rows]
    return preamble + "\n".join([header, *lines]) + "\n"


def _cell(value: object) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def clock(times: np.ndarray, form: str) -> list[str]:
    """Written times: form as of strftime, %f in milliseconds."""
    stamps = [START + timedelta(seconds=float(t)) for t in times]
    return [s.strftime(form.replace("%f", f"{s.microsecond // 1000:03d}")) for s in stamps]


def put(path: Path, content: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding=encoding, newline="")
    return path


def zipped(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def in_folder(path: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        put(path / name, content)
    return path


# --- Sensor Logger ------------------------------------------------------------------------------

LOGGER_HEADER = "time,seconds_elapsed,z,y,x"


def logger_file(t: np.ndarray, xyz: np.ndarray) -> str:
    unix_ns = [f"{1_769_862_896_789_000_000 + round(s * 1e9)}" for s in t]
    return text(LOGGER_HEADER, [unix_ns, t - 0.1, xyz[:, ::-1]])


def logger_metadata(platform: str, standardised: bool) -> str:
    return (
        "version,device name,recording epoch time,recording time,recording timezone,platform,"
        "appVersion,device id,sensors,sampleRateMs,standardisation,platform version\n"
        f"3,Phone,1769862896789,2026-01-31_12-34-56,Europe/Berlin,{platform},1.64,0f,"
        f"Accelerometer|Gravity|Gyroscope,20|20|20,{str(standardised).lower()},18\n"
    )


def logger_files(
    truth: Truth, platform: str, standardised: bool = False, uncalibrated: bool = False
) -> dict[str, str]:
    """An export: Android has TotalAcceleration, iOS the sum of two files, in Apple's sign."""
    sign = -1 if platform == "ios" and not standardised else 1
    t, gravity = TIMES, np.broadcast_to(truth.gravity, (len(TIMES), 3))
    files = {
        "Metadata.csv": logger_metadata(platform, standardised),
        "Gyroscope.csv": logger_file(LATER, truth.gyro(LATER)),
        "Barometer.csv": "time,seconds_elapsed,relativeAltitude,pressure\n1,0,0,1000\n",
    }
    if uncalibrated:
        unit = 1 / G if sign < 0 else 1.0
        return {
            "AccelerometerUncalibrated.csv": logger_file(t, sign * unit * truth.acc(t)),
            **files,
        }
    files["Accelerometer.csv"] = logger_file(t, sign * truth.motion(t))
    if platform == "android":
        files["TotalAcceleration.csv"] = logger_file(t, truth.acc(t))
    else:
        files["Gravity.csv"] = logger_file(t, sign * gravity)
    return files


def logger_watch(folder: Path, truth: Truth, standardised: bool) -> Path:
    """A recording of an Apple Watch alone: g and Apple's sign, unless standardised."""
    factor = 1.0 if standardised else -1 / G
    gravity = np.broadcast_to(truth.gravity, (len(TIMES), 3))
    header = (
        "time,seconds_elapsed,rotationRateX,rotationRateY,rotationRateZ,gravityX,gravityY,gravityZ,"
        "accelerationX,accelerationY,accelerationZ,quaternionW,quaternionX,quaternionY,quaternionZ"
    )
    columns = [["1769862896789000000"] * len(TIMES), TIMES, truth.gyro(TIMES), factor * gravity,
               factor * truth.motion(TIMES), np.tile([1, 0, 0, 0], (len(TIMES), 1))]  # fmt: skip
    files = {"WristMotion.csv": text(header, columns),
             "Metadata.csv": logger_metadata("ios", standardised)}  # fmt: skip
    return in_folder(folder / "watch", files)


def logger_zip(folder: Path, truth: Truth, platform: str, prefix: str = "", **more: bool) -> Path:
    files = logger_files(truth, platform, **more)
    return zipped(folder / "export.zip", {prefix + n: c for n, c in files.items()})


def logger_folder(folder: Path, truth: Truth, platform: str, **more: bool) -> Path:
    return in_folder(folder / "export", logger_files(truth, platform, **more))


# --- phyphox ------------------------------------------------------------------------------------


def phyphox_file(t: np.ndarray, name: str, unit: str, xyz: np.ndarray, dialect: str) -> str:
    """One set; dialect is the delimiter and the decimal point."""
    delimiter, point = dialect[0], dialect[1]
    header = delimiter.join(
        f'"{h}"' for h in ["Time (s)", *(f"{name} {a} ({unit})" for a in "xyz")]
    )
    columns = np.column_stack([t, xyz])
    absolute = np.sqrt((xyz**2).sum(axis=1))
    if name == "Acceleration":
        header += f'{delimiter}"Absolute acceleration (m/s^2)"'
        columns = np.column_stack([columns, absolute])
    rows = [delimiter.join(f"{v:.9E}".replace(".", point) for v in row) for row in columns.tolist()]
    return "\n".join([header, *rows]) + "\n"


def phyphox_files(truth: Truth, dialect: str) -> dict[str, str]:
    return {
        "Accelerometer.csv": phyphox_file(
            TIMES, "Acceleration", "m/s^2", truth.acc(TIMES), dialect
        ),
        "Gyroscope.csv": phyphox_file(LATER, "Gyroscope", "rad/s", truth.gyro(LATER), dialect),
        "Linear Acceleration.csv": phyphox_file(
            TIMES, "Linear Acceleration", "m/s^2", truth.motion(TIMES), dialect
        ),
        "meta/time.csv": '"event"\t"experiment time"\t"system time"\t"system time text"\n',
        "meta/device.csv": '"property"\t"value"\n',
    }


def phyphox_zip(folder: Path, truth: Truth, dialect: str) -> Path:
    return zipped(folder / "phyphox.zip", phyphox_files(truth, dialect))


def phyphox_single(folder: Path, truth: Truth, dialect: str) -> Path:
    """One set of both sensors, each with its times; the shorter one is padded with NaN."""
    acc = phyphox_file(TIMES, "Acceleration", "m/s^2", truth.acc(TIMES), dialect)
    gyro = phyphox_file(LATER[:-5], "Gyroscope", "rad/s", truth.gyro(LATER[:-5]), dialect)
    gyro_rows = gyro.splitlines() + [dialect[0].join(["NaN"] * 4)] * 5
    rows = [a + dialect[0] + g for a, g in zip(acc.splitlines(), gyro_rows, strict=True)]
    return put(folder / "Raw Data.csv", "\n".join(rows) + "\n")


# --- the others ---------------------------------------------------------------------------------

SENSORLOG_MOTION = (
    "loggingTime(txt),motionTimestamp_sinceReboot(s),motionYaw(rad),"
    "motionRotationRateX(rad/s),motionRotationRateY(rad/s),motionRotationRateZ(rad/s),"
    "motionUserAccelerationX(G),motionUserAccelerationY(G),motionUserAccelerationZ(G),"
    "motionGravityX(G),motionGravityY(G),motionGravityZ(G)"
)
SENSORLOG_RAW = (
    "loggingTime(txt),accelerometerTimestamp_sinceReboot(s),accelerometerAccelerationX(G),"
    "accelerometerAccelerationY(G),accelerometerAccelerationZ(G),"
    "gyroRotationX(rad/s),gyroRotationY(rad/s),gyroRotationZ(rad/s)"
)
SENSORLOG_TIME = "%Y-%m-%d %H:%M:%S.%f +0100"


def sensorlog_motion(folder: Path, truth: Truth) -> Path:
    gravity = np.broadcast_to(truth.gravity, (len(TIMES), 3))
    columns = [clock(TIMES, SENSORLOG_TIME), 62_608 + TIMES, 0 * TIMES, truth.gyro(TIMES),
               -truth.motion(TIMES) / G, -gravity / G]  # fmt: skip
    return put(folder / "stream.csv", text(SENSORLOG_MOTION, columns))


def sensorlog_raw(folder: Path, truth: Truth, with_stamp: bool = True) -> Path:
    header = SENSORLOG_RAW
    columns = [clock(TIMES, SENSORLOG_TIME), 62_608 + TIMES, -truth.acc(TIMES) / G,
               truth.gyro(TIMES)]  # fmt: skip
    if not with_stamp:
        header = header.replace("accelerometerTimestamp_sinceReboot(s),", "")
        del columns[1]
    return put(folder / "stream.csv", text(header, columns, ";").replace(",", ";"))


def polar_file(t: np.ndarray, unit: str, xyz: np.ndarray) -> str:
    since_2000_ns = [f"{838_432_586_543_515_816 + round(s * 1e9)}" for s in t]
    header = f"Phone timestamp;sensor timestamp [ns];X [{unit}];Y [{unit}];Z [{unit}] "
    return text(header, [clock(t, "%Y-%m-%dT%H:%M:%S.%f"), since_2000_ns, xyz], ";")


def polar(folder: Path, truth: Truth) -> Path:
    prefix = "Polar_Sense_0C301E3F_20260131_123456"
    files = {
        f"{prefix}_ACC.txt": polar_file(TIMES, "mg", np.round(truth.acc(TIMES) / G * 1e3)),
        f"{prefix}_GYRO.txt": polar_file(LATER, "dps", truth.gyro(LATER) * DEG),
        f"{prefix}_MAGN.txt": polar_file(TIMES, "G", truth.gyro(TIMES)),
    }
    return in_folder(folder / "polar", files)


DOT_PREAMBLE = (
    "sep=,\nDeviceTag:,left wrist,,,,\nFirmwareVersion:,3.0.0\nAppVersion:,2023.6.0\n"
    "SyncStatus:,Synced\nOutputRate:,60Hz\nFilterProfile:,General\n"
    "Measurement Mode:,Custom Mode 5\nStartTime: ,2026-01-31_12:34:56_086 CET\n"
    "© Movella Technologies B. V. 2005-2026\n\n"
)


def dot(folder: Path, truth: Truth, first_us: int = 2_268_972_329, delimiter: str = ",") -> Path:
    stamps = [str((first_us + round(t * 1e6)) % 2**32) for t in TIMES]
    header = ("PacketCounter,SampleTimeFine,Quat_W,Quat_X,Quat_Y,Quat_Z,Acc_X,Acc_Y,Acc_Z,"
              "Gyr_X,Gyr_Y,Gyr_Z,Status")  # fmt: skip
    columns = [list(range(len(TIMES))), stamps, np.tile([1, 0, 0, 0], (len(TIMES), 1)),
               truth.acc(TIMES), truth.gyro(TIMES) * DEG, [0] * len(TIMES)]  # fmt: skip
    preamble = DOT_PREAMBLE.replace(",", delimiter)
    content = text(header.replace(",", delimiter), columns, delimiter, preamble)
    return put(folder / "1_20260131.csv", content)


def metabase(folder: Path, truth: Truth, old: bool) -> Path:
    epoch, zone = ("epoc (ms)", "timestamp (-0700)") if old else ("epoch (ms)", "time (-13:00)")

    def content(t: np.ndarray, unit: str, xyz: np.ndarray) -> str:
        header = f"{epoch},{zone},elapsed (s),x-axis ({unit}),y-axis ({unit}),z-axis ({unit})"
        ms = [str(1_769_862_896_789 + round(s * 1e3)) for s in t]
        return text(header, [ms, clock(t, "%Y-%m-%dT%H.%M.%S.%f"), t - t[0], xyz])

    prefix = "MetaWear_2026-01-31T12.34.56.789_C8D5A3B0F1E2_"
    files = {
        prefix + "Accelerometer_50.000Hz_1.5.0.csv": content(TIMES, "g", truth.acc(TIMES) / G),
        prefix + "Gyroscope_50.000Hz_1.5.0.csv": content(LATER, "deg/s", truth.gyro(LATER) * DEG),
    }
    return in_folder(folder / "metabase", files)


WIT_HEADERS = {
    "english": "time\tDeviceName\tChipTime()\tAccX(g)\tAccY(g)\tAccZ(g)\tAsX(°/s)\tAsY(°/s)\t"
    "AsZ(°/s)\tAngleX(°)\tAngleY(°)\tAngleZ(°)",
    "chinese": "时间\t设备名称\t片上时间()\t加速度X(g)\t加速度Y(g)\t加速度Z(g)\t角速度X(°/s)\t"
    "角速度Y(°/s)\t角速度Z(°/s)\t角度X(°)\t角度Y(°)\t角度Z(°)",
}


def witmotion(
    folder: Path, truth: Truth, language: str, encoding: str = "utf-8", chip: bool = False
) -> Path:
    """The header is repeated in the middle, as after a pause."""
    header, n = WIT_HEADERS[language], len(TIMES)
    columns = [clock(np.zeros(n) if chip else TIMES, "%Y-%m-%dT%H:%M:%S.%f"),
               ["WT901BLE67(d7:9e:73:8d:00:01)"] * n,
               clock(TIMES, "%Y-%m-%d %H:%M:%S:%f") if chip else ["null"] * n,
               truth.acc(TIMES) / G, truth.gyro(TIMES) * DEG, np.zeros((n, 3))]  # fmt: skip
    lines = text(header, columns, "\t").splitlines()
    lines.insert(150, header)
    return put(folder / "wit.txt", "\r\n".join(lines) + "\r\n", encoding)


def openlog(folder: Path, truth: Truth, micros: bool) -> Path:
    header = "rtcDate,rtcTime,aX,aY,aZ,gX,gY,gZ,mX,mY,mZ,imu_degC,output_Hz,"
    # The clock passes midnight; the microseconds wrap.
    stamps = [START.replace(hour=23, minute=59, second=58) + timedelta(seconds=t) for t in TIMES]
    written = [f"{s:%H:%M:%S}.{s.microsecond // 10_000:02d}" for s in stamps]
    columns: list[Any] = [["01/31/2026"] * len(TIMES), written, truth.acc(TIMES) / G * 1e3,
               truth.gyro(TIMES) * DEG, np.zeros((len(TIMES), 5)), [""] * len(TIMES)]  # fmt: skip
    if micros:
        header = header.replace("rtcTime,", "rtcTime,micros,")
        columns.insert(2, [str((2**32 - 2_000_000 + round(t * 1e6)) % 2**32) for t in TIMES])
    return put(folder / "dataLog00001.csv", text(header, columns))


def arduino(folder: Path, truth: Truth) -> Path:
    columns = [truth.acc(TIMES_119) / G, truth.gyro(TIMES_119) * DEG]
    return put(folder / "walk.csv", text("aX,aY,aZ,gX,gY,gZ", columns))


TIMES_119 = np.arange(300) / 119.0


def impulse_csv(folder: Path, truth: Truth, acc_unit: float = G, gyro: str = "gyr") -> Path:
    names = "timestamp,accX,accY,accZ," + ",".join(gyro + a for a in "XYZ")
    columns = [[str(round(t * 1e3)) for t in TIMES], truth.acc(TIMES) / acc_unit,
               truth.gyro(TIMES) * DEG]  # fmt: skip
    return put(folder / "impulse.csv", text(names, columns))


def impulse_document(truth: Truth, acc: str = "m/s2", gyro: str = "dps") -> dict[str, Any]:
    factor = {"m/s2": 1.0, "g": 1 / G, "mg": 1e3 / G, "N/A": 1 / G}[acc]
    values = np.column_stack([truth.acc(TIMES) * factor, truth.gyro(TIMES) * DEG])
    sensors = [{"name": f"acc{a}", "units": acc} for a in "XYZ"]
    sensors += [{"name": f"gyr{a}", "units": gyro} for a in "XYZ"]
    return {
        "protected": {"ver": "v1", "alg": "none", "iat": 1769862896},
        "signature": "0" * 64,
        "payload": {
            "device_type": "NANO33BLE",
            "interval_ms": 20,
            "sensors": sensors,
            "values": values.tolist(),
        },
    }


def impulse_json(folder: Path, truth: Truth, **units: str) -> Path:
    return put(folder / "impulse.json", json.dumps(impulse_document(truth, **units)))


def ximu3(folder: Path, truth: Truth) -> Path:
    header = ("Timestamp (us),Gyroscope X (deg/s),Gyroscope Y (deg/s),Gyroscope Z (deg/s),"
              "Accelerometer X (g),Accelerometer Y (g),Accelerometer Z (g)")  # fmt: skip
    stamps = [str(19_150_794 + round(t * 1e6)) for t in TIMES]
    columns = [stamps, truth.gyro(TIMES) * DEG, truth.acc(TIMES) / G]
    files = {"Inertial.csv": text(header, columns),
             "LinearAcceleration.csv": "Timestamp (us),Linear Acceleration X (g)\n"}  # fmt: skip
    return in_folder(folder / "x-IMU3 673B204B (UDP)", files)


def toolbox(folder: Path, truth: Truth) -> Path:
    columns = [TIMES, truth.acc(TIMES) / G, truth.gyro(TIMES)]
    return put(folder / "toolbox.csv", text("time,gFx,gFy,gFz,wx,wy,wz", columns))


class Case(NamedTuple):
    write: Callable[[Path, Truth], Path]
    summary: str
    """What the summary says after the file's name."""
    acc_tolerance: float = 1e-4


LOGGER_ACC = "time seconds_elapsed in s, acc"
LOGGER_GYRO = "gyro Gyroscope.csv (columns z,y,x) in rad/s (as documented)"
TOTAL = "TotalAcceleration.csv (columns z,y,x) in m/s^2 (as documented)"
SUM = ("Accelerometer.csv (columns z,y,x) + Gravity.csv (columns z,y,x) "
       "in m/s^2 (as documented)")  # fmt: skip
RAW_FILE = "AccelerometerUncalibrated.csv (columns z,y,x) in"
DOCUMENTED = "(as documented)"
TURNED = ", sign turned so that +1 g points up"
PHYPHOX = ("phyphox, 50.0 Hz, time Time (s) in s, acc Acceleration x (m/s^2).. in m/s^2, "
           "gyro Gyroscope x (rad/s).. in rad/s")  # fmt: skip
WIT_END = "in s, acc {}X(g).. in g, gyro {}X(°/s).. in deg/s"
CASES = {
    "sensor-logger-android-zip": Case(
        partial(logger_zip, platform="android"),
        f"Sensor Logger (Android), 50.0 Hz, {LOGGER_ACC} {TOTAL}, {LOGGER_GYRO}",
    ),
    "sensor-logger-android-folder": Case(
        partial(logger_folder, platform="android"),
        f"Sensor Logger (Android), 50.0 Hz, {LOGGER_ACC} {TOTAL}, {LOGGER_GYRO}",
    ),
    "sensor-logger-ios-zip": Case(
        partial(logger_zip, platform="ios", prefix="2026-01-31/"),
        f"Sensor Logger (iOS), 50.0 Hz, {LOGGER_ACC} {SUM}{TURNED}, {LOGGER_GYRO}",
    ),
    "sensor-logger-ios-standardised": Case(
        partial(logger_folder, platform="ios", standardised=True),
        f"Sensor Logger (iOS, standardised), 50.0 Hz, {LOGGER_ACC} {SUM}, {LOGGER_GYRO}",
    ),
    "sensor-logger-ios-uncalibrated": Case(
        partial(logger_folder, platform="ios", uncalibrated=True),
        f"Sensor Logger (iOS), 50.0 Hz, {LOGGER_ACC} {RAW_FILE} g {DOCUMENTED}{TURNED}, "
        f"{LOGGER_GYRO}",
    ),
    "sensor-logger-android-uncalibrated": Case(
        partial(logger_folder, platform="android", uncalibrated=True),
        f"Sensor Logger (Android), 50.0 Hz, {LOGGER_ACC} {RAW_FILE} m/s^2 {DOCUMENTED}, "
        f"{LOGGER_GYRO}",
    ),
    "sensor-logger-watch": Case(
        partial(logger_watch, standardised=False),
        f"Sensor Logger (iOS), 50.0 Hz, {LOGGER_ACC} WristMotion.csv accelerationX.. "
        f"+ WristMotion.csv gravityX.. in g {DOCUMENTED}{TURNED}, "
        f"gyro WristMotion.csv rotationRateX.. in rad/s {DOCUMENTED}",
    ),
    "sensor-logger-watch-standardised": Case(
        partial(logger_watch, standardised=True),
        "Sensor Logger (iOS, standardised), 50.0 Hz, time seconds_elapsed in s, "
        "acc WristMotion.csv accelerationX.. + WristMotion.csv gravityX.. in m/s^2",
    ),
    "phyphox-zip-comma-point": Case(partial(phyphox_zip, dialect=",."), PHYPHOX),
    "phyphox-zip-tab-point": Case(partial(phyphox_zip, dialect="\t."), PHYPHOX),
    "phyphox-zip-semicolon-point": Case(partial(phyphox_zip, dialect=";."), PHYPHOX),
    "phyphox-zip-tab-comma": Case(partial(phyphox_zip, dialect="\t,"), PHYPHOX),
    "phyphox-zip-semicolon-comma": Case(partial(phyphox_zip, dialect=";,"), PHYPHOX),
    "phyphox-single-csv": Case(partial(phyphox_single, dialect=",."), PHYPHOX),
    "phyphox-single-csv-comma": Case(partial(phyphox_single, dialect=";,"), PHYPHOX),
    "sensorlog-motion": Case(
        sensorlog_motion,
        "SensorLog (iOS), 50.0 Hz, time motionTimestamp_sinceReboot(s) in s, "
        f"acc motionUserAccelerationX(G).. + motionGravityX(G).. in g{TURNED}, "
        "gyro motionRotationRateX(rad/s).. in rad/s",
    ),
    "sensorlog-raw": Case(
        sensorlog_raw,
        "SensorLog (iOS), 50.0 Hz, time accelerometerTimestamp_sinceReboot(s) in s, "
        f"acc accelerometerAccelerationX(G).. in g{TURNED}, gyro gyroRotationX(rad/s).. in rad/s",
    ),
    "sensorlog-logging-time": Case(
        partial(sensorlog_raw, with_stamp=False),
        "SensorLog (iOS), 50.0 Hz, time loggingTime(txt) in s",
    ),
    "polar": Case(
        polar,
        "Polar Sensor Logger, 50.0 Hz, time sensor timestamp [ns] in ns, acc X [mg].. in mg, "
        "gyro X [dps].. in deg/s",
        acc_tolerance=5e-3,
    ),
    "movella-dot": Case(
        dot,
        f"Movella DOT, 50.0 Hz, time SampleTimeFine in us {DOCUMENTED}, acc Acc_X.. in m/s^2 "
        f"{DOCUMENTED}, gyro Gyr_X.. in deg/s {DOCUMENTED}",
    ),
    "movella-dot-wraps": Case(partial(dot, first_us=2**32 - 3_000_000), "Movella DOT, 50.0 Hz"),
    "movella-dot-semicolon": Case(partial(dot, delimiter=";"), "Movella DOT, 50.0 Hz"),
    "metabase": Case(
        partial(metabase, old=False),
        "MetaBase, 50.0 Hz, time epoch (ms) in ms, acc x-axis (g).. in g, "
        "gyro x-axis (deg/s).. in deg/s",
    ),
    "metabase-old": Case(partial(metabase, old=True), "MetaBase, 50.0 Hz, time epoc (ms) in ms"),
    "witmotion": Case(
        partial(witmotion, language="english"),
        f"WitMotion, 50.0 Hz, time time {WIT_END.format('Acc', 'As')}",
    ),
    "witmotion-chip-time": Case(
        partial(witmotion, language="english", chip=True),
        f"WitMotion, 50.0 Hz, time ChipTime() {WIT_END.format('Acc', 'As')}",
    ),
    "witmotion-latin-1": Case(
        partial(witmotion, language="english", encoding="latin-1"),
        f"WitMotion, 50.0 Hz, time time {WIT_END.format('Acc', 'As')}",
    ),
    "witmotion-chinese": Case(
        partial(witmotion, language="chinese"),
        f"WitMotion, 50.0 Hz, time 时间 {WIT_END.format('加速度', '角速度')}",
    ),
    "witmotion-gbk": Case(
        partial(witmotion, language="chinese", encoding="gbk"),
        f"WitMotion, 50.0 Hz, time 时间 {WIT_END.format('加速度', '角速度')}",
    ),
    "openlog-clock": Case(
        partial(openlog, micros=False),
        f"OpenLog Artemis, 50.0 Hz, time rtcTime in s, acc aX.. in mg {DOCUMENTED}, "
        f"gyro gX.. in deg/s {DOCUMENTED}",
    ),
    "openlog-micros": Case(
        partial(openlog, micros=True), "OpenLog Artemis, 50.0 Hz, time micros in us"
    ),
    "arduino": Case(
        arduino,
        "Arduino IMU_Capture, 119.0 Hz, time rows counted in s (at 119 Hz as "
        f"documented), acc aX.. in g {DOCUMENTED}, gyro gX.. in deg/s {DOCUMENTED}",
    ),
    "edge-impulse-csv": Case(
        impulse_csv,
        "Edge Impulse CSV, 50.0 Hz, time timestamp in ms (by the rate), acc accX.. in g "
        "(the median |acc| is 1.",
    ),
    "edge-impulse-csv-si": Case(
        partial(impulse_csv, acc_unit=1.0, gyro="gyro"),
        "Edge Impulse CSV, 50.0 Hz, time timestamp in ms (by the rate), acc accX.. in m/s^2 "
        "(the median |acc| is 9.",
    ),
    "edge-impulse-csv-mg": Case(
        partial(impulse_csv, acc_unit=G / 1e3),
        "Edge Impulse CSV, 50.0 Hz, time timestamp in ms (by the rate), acc accX.. in mg ",
    ),
    "edge-impulse-json": Case(
        impulse_json,
        "Edge Impulse JSON, 50.0 Hz, time interval_ms in ms, acc accX.. in m/s^2, "
        "gyro gyrX.. in deg/s",
    ),
    "edge-impulse-json-g": Case(
        partial(impulse_json, acc="g"),
        "Edge Impulse JSON, 50.0 Hz, time interval_ms in ms, acc accX.. in g, ",
    ),
    "edge-impulse-json-unstated": Case(
        partial(impulse_json, acc="N/A"),
        "Edge Impulse JSON, 50.0 Hz, time interval_ms in ms, acc accX.. in g (the median |acc| is ",
    ),
    "x-imu3": Case(
        ximu3,
        "x-IMU3, 50.0 Hz, time Timestamp (us) in us, acc Accelerometer X (g).. in g, "
        "gyro Gyroscope X (deg/s).. in deg/s",
    ),
    "physics-toolbox": Case(
        toolbox, "Physics Toolbox, 50.0 Hz, time time in s, acc gFx.. in g, gyro wx.. in rad/s"
    ),
}
UNSTATED_GYRO = "edge-impulse-csv"
"""Formats whose gyroscope's unit is taken from its size."""


def units_for(name: str) -> UnitOptions:
    # The test's gyroscope turns slowly, which looks like rad/s: the user says what it is.
    return UnitOptions(gyro="deg/s" if name.startswith(UNSTATED_GYRO) else None)


@pytest.mark.parametrize("name", CASES)
def test_a_layout_is_recognised_converted_and_described(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    recording = open_recording(case.write(tmp_path, UP), units_for(name))
    assert recording.summary.startswith(f"{recording.path.name}: {case.summary}")
    t, acc, gyro = all_samples(recording)
    assert gyro is not None and 290 <= len(t) <= 300
    # A gyroscope with times of its own begins later than the accelerometer, by less than a sample.
    start = 0 if len(t) == 300 else 1
    own = (TIMES_119 if name == "arduino" else TIMES)[start : start + len(t)]
    np.testing.assert_allclose(np.diff(t), np.diff(own), atol=1e-5)
    np.testing.assert_allclose(acc, UP.acc(own), atol=case.acc_tolerance * 2)
    np.testing.assert_allclose(gyro, UP.gyro(own), atol=3e-3)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("side", [1, -1])
def test_what_points_up_reads_plus_one_g(tmp_path: Path, name: str, axis: int, side: int) -> None:
    truth = Truth(side * G * np.eye(3)[axis])
    recording = open_recording(CASES[name].write(tmp_path, truth), units_for(name))
    _, acc, gyro = all_samples(recording)
    np.testing.assert_allclose(acc.mean(axis=0), truth.gravity, atol=0.2)
    assert gyro is not None
    expected = truth.gyro(TIMES_119 if name == "arduino" else TIMES)
    np.testing.assert_allclose(gyro.std(axis=0), expected.std(axis=0), rtol=0.05)


def test_a_fast_gyroscope_without_a_unit_is_in_deg_s(tmp_path: Path) -> None:
    class Spinning(Truth):
        def gyro(self, t: np.ndarray) -> np.ndarray:
            return 5 * super().gyro(t)

    truth = Spinning(UP.gravity)
    recording = open_recording(impulse_csv(tmp_path, truth))
    assert "gyro gyrX.. in deg/s (it reaches 286" in recording.summary
    _, _, gyro = all_samples(recording)
    np.testing.assert_allclose(gyro, truth.gyro(TIMES), atol=1e-4)
    slow = open_recording(impulse_csv(tmp_path, UP))
    assert "in deg/s" in slow.summary  # 57 is more than any wearable's rad/s


def test_edge_impulse_without_a_gyroscope_unit_is_taken_as_rad_s_and_said(tmp_path: Path) -> None:
    columns = [[str(round(t * 1e3)) for t in TIMES], UP.acc(TIMES), UP.gyro(TIMES)]
    header = "timestamp,accX,accY,accZ,gyrX,gyrY,gyrZ"
    recording = open_recording(put(tmp_path / "r.csv", text(header, columns)))
    assert any("taken as rad/s" in note for note in recording.notes)


def test_notes_say_what_was_assumed(tmp_path: Path) -> None:
    assert any("no time" in n for n in open_recording(arduino(tmp_path, UP)).notes)
    files = logger_files(UP, "ios")
    files["WristMotion.csv"] = (logger_watch(tmp_path, UP, False) / "WristMotion.csv").read_text()
    recording = open_recording(in_folder(tmp_path / "both", files))
    assert "Accelerometer.csv" in recording.summary
    assert any("for the watch give" in note for note in recording.notes)


def test_a_captures_blank_line_is_a_pause(tmp_path: Path) -> None:
    lines = arduino(tmp_path, UP).read_text().splitlines()
    lines.insert(120, "")
    recording = open_recording(put(tmp_path / "two.csv", "\n".join(lines) + "\n"))
    t, acc, _ = all_samples(recording)
    assert len(t) == 300 and np.isfinite(acc).all()
    steps = np.diff(t)
    assert steps[118] == pytest.approx(1 + 1 / 119)
    np.testing.assert_allclose(np.delete(steps, 118), 1 / 119)


def test_the_first_of_several_witmotion_devices_is_replayed(tmp_path: Path) -> None:
    lines = witmotion(tmp_path, UP, "english").read_text().splitlines()
    both = [lines[0]]
    for line in lines[1:]:
        both += [line, line.replace("d7:9e", "aa:bb").replace("\t0\t", "\t9\t")]
    recording = open_recording(put(tmp_path / "both.txt", "\n".join(both) + "\n"))
    _, acc, _ = all_samples(recording)
    np.testing.assert_allclose(acc, UP.acc(TIMES), atol=1e-4)
    assert any("2 devices" in n and "aa:bb" in n for n in recording.notes)


def test_a_sensor_logger_recording_may_begin_before_zero(tmp_path: Path) -> None:
    t, _, _ = all_samples(open_recording(logger_folder(tmp_path, UP, "android")))
    assert t[0] == pytest.approx(0.02 - 0.1)


def test_polar_and_metabase_alone_are_accelerometers(tmp_path: Path) -> None:
    for folder, pattern in ((polar(tmp_path, UP), "*_ACC.txt"),
                            (metabase(tmp_path, UP, False), "*Accelerometer*")):  # fmt: skip
        recording = open_recording(next(folder.glob(pattern)))
        t, acc, gyro = all_samples(recording)
        assert len(t) == 300 and gyro is None and "no gyroscope" in recording.summary
        np.testing.assert_allclose(acc, UP.acc(TIMES), atol=1e-2)


def test_a_units_option_outranks_the_documentation(tmp_path: Path) -> None:
    path = dot(tmp_path, Truth(UP.gravity / G))
    with pytest.raises(InputError, match="m/s\\^2 is its unit as documented"):
        open_recording(put(tmp_path / "g.csv", _scaled_acc(path, 1 / G)))
    recording = open_recording(
        put(tmp_path / "g.csv", _scaled_acc(dot(tmp_path, UP), 1 / G)), UnitOptions(acc="g")
    )
    assert "acc Acc_X.. in g, gyro" in recording.summary
    np.testing.assert_allclose(all_samples(recording)[1], UP.acc(TIMES), atol=1e-3)


def _scaled_acc(path: Path, factor: float) -> str:
    lines = path.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("PacketCounter")) + 1
    for i, line in enumerate(lines[start:], start=start):
        cells = line.split(",")
        cells[6:9] = [f"{float(c) * factor:.7f}" for c in cells[6:9]]
        lines[i] = ",".join(cells)
    return "\n".join(lines) + "\n"


# --- refused ------------------------------------------------------------------------------------

WITHOUT_GRAVITY = "has acceleration without gravity only"


def without(files: dict[str, str], *names: str) -> dict[str, str]:
    return {n: c for n, c in files.items() if n not in names}


def dot_free(folder: Path) -> Path:
    header = "PacketCounter,SampleTimeFine,Euler_X,Euler_Y,Euler_Z,FreeAcc_X,FreeAcc_Y,FreeAcc_Z"
    columns = [list(range(300)), list(range(300)), np.zeros((300, 6))]
    return put(folder / "free.csv", text(header, columns, preamble=DOT_PREAMBLE))


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "sensor logger, no gravity": (
        lambda f: in_folder(f / "e", without(logger_files(UP, "ios"), "Gravity.csv")),
        "Accelerometer.csv: has acceleration without gravity only.*switch on Gravity",
    ),
    "sensor logger, platform unknown": (
        lambda f: in_folder(f / "e", without(logger_files(UP, "ios"), "Metadata.csv")),
        "opposite signs: put the export's Metadata.csv beside",
    ),
    "sensor logger, gyroscope only": (
        lambda f: in_folder(
            f / "e", without(logger_files(UP, "ios"), "Gravity.csv", "Accelerometer.csv")
        ),
        "without an accelerometer; switch on",
    ),
    "sensor logger, one file": (
        lambda f: logger_folder(f, UP, "android") / "TotalAcceleration.csv",
        "one file of a Sensor Logger export.*give the export's zip or folder",
    ),
    "phyphox, linear acceleration in a zip": (
        lambda f: zipped(f / "p.zip", without(phyphox_files(UP, ",."), "Accelerometer.csv")),
        f"Linear Acceleration.csv:1: {WITHOUT_GRAVITY}.*'Acceleration \\(with g\\)'",
    ),
    "phyphox, linear acceleration": (
        lambda f: put(f / "l.csv", phyphox_files(UP, "\t,")["Linear Acceleration.csv"]),
        f"l.csv:1: {WITHOUT_GRAVITY}.*'Acceleration \\(with g\\)'",
    ),
    "phyphox, gyroscope": (
        lambda f: put(f / "g.csv", phyphox_files(UP, ",.")["Gyroscope.csv"]),
        "g.csv: holds the gyroscope of a phyphox export",
    ),
    "sensorlog, user acceleration": (
        lambda f: put(
            f / "u.csv",
            text(
                SENSORLOG_MOTION.rsplit(",", 3)[0],
                [clock(TIMES, SENSORLOG_TIME), TIMES, TIMES, UP.gyro(TIMES), UP.motion(TIMES) / G],
            ),
        ),
        f"u.csv:1: {WITHOUT_GRAVITY}.*switch on Gravity beside Device Motion",
    ),
    "sensorlog, no time": (
        lambda f: put(
            f / "n.csv", text(SENSORLOG_RAW.split(",", 2)[2], [-UP.acc(TIMES) / G, UP.gyro(TIMES)])
        ),
        "n.csv:1: no time. Switch on loggingTime",
    ),
    "dot, free acceleration": (dot_free, f"free.csv:12: {WITHOUT_GRAVITY}.*Rate quantities"),
    "dot, orientation only": (
        lambda f: put(
            f / "q.csv", "PacketCounter,SampleTimeFine,Euler_X,Euler_Y,Euler_Z\n1,2,3,4,5\n"
        ),
        "q.csv:1: has no Acc_X, Acc_Y, Acc_Z; record in a mode with Acc",
    ),
    "x-imu3, linear acceleration": (
        lambda f: put(
            f / "l.csv",
            "Timestamp (us),Linear Acceleration X (g),"
            "Linear Acceleration Y (g),Linear Acceleration Z (g)\n1,0,0,0\n",
        ),
        f"l.csv:1: {WITHOUT_GRAVITY}.*Inertial.csv",
    ),
    "polar, gyroscope alone": (
        lambda f: next(polar(f, UP).glob("*_GYRO.txt")),
        "_GYRO.txt: holds the gyroscope of a Polar Sensor Logger export",
    ),
    "polar, two recordings": (
        lambda f: in_folder(
            polar(f, UP), {"Polar_H10_X_20260201_ACC.txt": polar_file(TIMES, "mg", UP.acc(TIMES))}
        ),
        "holds 2 accelerometer files .*give a folder with the files of one recording",
    ),
    "metabase, gyroscope alone": (
        lambda f: in_folder(
            f / "m", {"A_Gyroscope_1.csv": next(metabase(f, UP, False).glob("*Gyro*")).read_text()}
        ),
        "holds the gyroscope of a MetaBase export and no accelerometer",
    ),
    "json without a payload": (lambda f: put(f / "j.json", "[1, 2]"), "document is \\[1, 2\\]"),
    "json that is none": (lambda f: put(f / "j.json", "{"), "not valid JSON"),
    "json nested beyond reason": (lambda f: put(f / "j.json", "[" * 200_000), "not valid JSON"),
    "json without an interval": (
        lambda f: put(f / "j.json", '{"payload": {"interval_ms": 0}}'),
        "interval_ms is 0, expected",
    ),
    "json with a short row": (
        lambda f: put(f / "j.json", json.dumps(_edited(lambda p: p["values"].insert(7, [1.0])))),
        r"payload.values\[7\] is \[1.0\], expected 6 numbers",
    ),
    "json with text in a row": (
        lambda f: put(
            f / "j.json", json.dumps(_edited(lambda p: p["values"][3].__setitem__(2, "x")))
        ),
        r"payload.values\[3\] is .*expected 6 numbers",
    ),
    "json without axes": (
        lambda f: put(
            f / "j.json",
            json.dumps(
                _edited(
                    lambda p: (
                        p["sensors"].reverse() or [s.update(name="audio") for s in p["sensors"]]
                    )
                )
            ),
        ),
        "names no three accelerometer axes.*audio",
    ),
    "cbor": (lambda f: put(f / "j.cbor", "x"), "CBOR is not read; export the recording as JSON"),
    "a gravity-free signal under a good name": (
        lambda f: put(
            f / "m.csv", text("timestamp,accX,accY,accZ", [TIMES * 1e3, UP.motion(TIMES) / 50])
        ),
        "if gravity was removed",
    ),
    "a folder of other things": (
        lambda f: in_folder(f / "e", {"notes.csv": "time,ax,ay,az\n"}),
        "is a folder without an export",
    ),
    "a zip of other things": (
        lambda f: zipped(f / "e.zip", {"a.csv": "x", "b.csv": "y"}),
        "is a zip without an export",
    ),
    "an Excel file": (
        lambda f: zipped(f / "e.xlsx", {"xl/workbook.xml": "", "a.csv": ""}),
        "an Excel file; export",
    ),
    "files of two recordings": (
        lambda f: in_folder(
            f / "e",
            {
                **logger_files(UP, "android"),
                "Gyroscope.csv": logger_file(TIMES + 900, UP.gyro(TIMES)),
            },
        ),
        "do not overlap in time; give the files of one recording",
    ),
}


def _edited(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    document = impulse_document(UP)
    change(document["payload"])
    return document


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_with_reason_and_cure(tmp_path: Path, name: str) -> None:
    write, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        open_recording(write(tmp_path))


def test_an_error_in_a_later_row_names_the_file_in_the_zip(tmp_path: Path) -> None:
    files = logger_files(UP, "android")
    lines = files["TotalAcceleration.csv"].splitlines()
    lines[7] = lines[7].replace(",", ",oops", 1)
    files["TotalAcceleration.csv"] = "\n".join(lines)
    path = zipped(tmp_path / "e.zip", files)
    message = r"e\.zip/TotalAcceleration\.csv:8: column 'seconds_elapsed' holds 'oops"
    with pytest.raises(InputError, match=message):
        open_recording(path)
    lines = witmotion(tmp_path, UP, "english").read_text().splitlines()
    lines[9] = "yesterday" + lines[9][lines[9].index("\t") :]
    put(tmp_path / "w.txt", "\n".join(lines))
    with pytest.raises(
        InputError, match=r"w\.txt:10: column 'time' holds 'yesterday', expected a ti"
    ):
        open_recording(tmp_path / "w.txt")
