"""Classical features of a window, for the random forest and the gradient boosting.

The set follows Anguita et al. 2013, "A Public Domain Dataset for Human Activity Recognition Using
Smartphones" (ESANN 2013; the features of UCI HAR): per axis and per magnitude mean, deviation,
extremes, quartiles, energy, entropy, jerk, correlation between axes, and energy in bands of the
spectrum. Cadence from the autocorrelation is Moe-Nilssen & Helbostad 2004, "Estimation of gait
cycle characteristics by trunk accelerometry" (J. Biomech. 37:121); splitting the acceleration into
what lies along the mean direction of gravity and what lies across it is Mizell 2003, "Using gravity
to estimate accelerometer orientation" (ISWC 2003).

Devices are worn in any orientation, so most features do not change when the device is turned
(`ROTATION_INVARIANT`); those of the single axes and of the direction of gravity do.

All is computed at 50 Hz, on means of four samples: human movement lies below 15 Hz, and corpora
recorded at 20 to 200 Hz look more alike there. Means of four weaken 15 Hz to 0.87 of its amplitude.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from edge.spec import SIGNAL

RATE_HZ = 50
"""Rate at which the features are computed."""

BANDS_HZ = ((0.3, 1.0), (1.0, 2.0), (2.0, 3.0), (3.0, 5.0), (5.0, 8.0), (8.0, 15.0))
"""Bands of the spectrum; the lower end belongs to a band, the upper does not."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

CADENCE_LAG_S = (0.2, 2.0)
"""Periods that are looked for in the autocorrelation: 5 to 0.5 Hz."""

MIN_MEASURED_S = 0.5
"""A sensor that measured less than this has no features (NaN)."""

FLAT = 1e-3
"""Standard deviation in the sensor's unit below which nothing but rounding is left: no shape, no
period and no spectrum is read out of such a signal."""

_STEP = SIGNAL.rate_hz // RATE_HZ
_SAMPLES = SIGNAL.window_samples // _STEP
_FFT = 512
"""At least twice the samples, so that the autocorrelation does not wrap round."""

_CHUNK = 64
"""Windows computed at once: small enough that the work stays in a core's cache."""

_SENSORS = ("acc", "gyro")
_SIGNALS = ("x", "y", "z", "norm", "vertical", "horizontal")
"""Of each sensor. `vertical`: along the window's mean acceleration, i.e. gravity (for the gyroscope
the turning about it); `horizontal`: length of what is left."""

_OF_A_SIGNAL = (
    "mean",
    "std",
    "skewness",
    "kurtosis",
    "min",
    *(f"q{round(100 * q):02d}" for q in QUANTILES),
    "max",
    "crossings_hz",
    "jerk_mean_abs",
    "jerk_std",
    "period_strength",
    "cadence_hz",
    "dominant_hz",
    "dominant_share",
    "spectral_entropy",
    *(f"energy_{low:g}_{high:g}_hz" for low, high in BANDS_HZ),
)
_PAIRS = tuple(combinations(range(3), 2))
_OF_A_SENSOR = (
    *(f"correlation_{_SIGNALS[i]}{_SIGNALS[j]}" for i, j in _PAIRS),
    "principal_std_1",
    "principal_std_2",
    "principal_std_3",
    "jerk_norm_mean",
    "energy",
)
_OF_ALL = (
    "gravity_x",
    "gravity_y",
    "gravity_z",
    "gravity_norm",
    "gravity_turn",
    "acc_gyro_correlation",
)

FEATURE_NAMES: tuple[str, ...] = (
    *(f"{s}_{signal}_{name}" for s in _SENSORS for signal in _SIGNALS for name in _OF_A_SIGNAL),
    *(f"{s}_{name}" for s in _SENSORS for name in _OF_A_SENSOR),
    *_OF_ALL,
)
"""Name of each column of `features`, in order."""

ROTATION_INVARIANT: NDArray[np.bool_] = np.array(
    [
        not any(
            name.startswith((f"{s}_{axis}_", f"{s}_correlation_"))
            for s in _SENSORS
            for axis in "xyz"
        )
        and name not in ("gravity_x", "gravity_y", "gravity_z")
        for name in FEATURE_NAMES
    ]
)
"""(F,) True for the columns that stay the same when the device is worn in another orientation."""


def features(imu: NDArray[np.floating]) -> NDArray[np.float32]:
    """Features of windows.

    Args:
        imu: (N, 6, 1000) at 200 Hz, m/s^2 with gravity and rad/s, NaN where nothing was measured.

    Returns:
        (N, F) in the order of `FEATURE_NAMES`, finite or NaN: all features of a sensor that is
        missing, and the cadence and the dominant frequency of a signal that has none.
    """
    out = np.empty((len(imu), len(FEATURE_NAMES)), np.float32)
    for start in range(0, len(imu), _CHUNK):
        chunk = np.asarray(imu[start : start + _CHUNK], np.float32)
        out[start : start + _CHUNK] = _features(chunk)
    return out


@dataclass(frozen=True)
class _Measured:
    """Signals of a chunk at 50 Hz, and where they were measured."""

    value: NDArray[np.float32]
    """(N, 2, S, T), 0 where nothing was measured."""

    present: NDArray[np.float32]
    """(N, 2, 1, T) of each sensor, 1 or 0."""

    count: NDArray[np.float32]
    """(N, 2, 1) number of samples present, at least 1."""


def _features(imu: NDArray[np.float32]) -> NDArray[np.float32]:
    axes = _at_50_hz(imu)
    mean = axes.value.sum(-1) / axes.count  # (N, 2, 3)
    gravity_norm = _length(mean[:, 0])
    gravity = mean[:, 0] / np.maximum(gravity_norm, 1e-6)[:, None]
    signals = _signals(axes, gravity)
    centre = signals.value.sum(-1) / signals.count
    body = (signals.value - centre[..., None]) * signals.present
    std = np.sqrt((body * body).sum(-1) / signals.count)
    step, stepped = _steps(signals)
    by_signal = np.concatenate(
        [
            centre[..., None],
            std[..., None],
            _shape(body, std, signals.count),
            _order(signals),
            _crossings(body, stepped)[..., None],
            _jerk(step, stepped),
            _period(body, std, signals.present),
            _spectrum(body, std, signals.present),
        ],
        axis=-1,
    )
    covariance = np.einsum("nsit,nsjt->nsij", body[:, :, :3], body[:, :, :3], optimize=True)
    covariance /= axes.count[..., None]
    by_sensor = np.concatenate(
        [
            _correlations(covariance, std[:, :, :3]),
            np.sqrt(np.maximum(np.linalg.eigvalsh(covariance)[..., ::-1], 0)),
            _mean_over(_length(step[:, :, :3], axis=2), stepped[:, :, 0])[..., None],
            np.trace(covariance, axis1=2, axis2=3)[..., None],
        ],
        axis=-1,
    )
    enough = axes.present.sum(-1)[..., 0] >= MIN_MEASURED_S * RATE_HZ  # (N, 2)
    by_signal[~enough] = np.nan
    by_sensor[~enough] = np.nan
    norms = body[:, :, 3] * axes.present.prod(1)  # (N, 2, T): |a| and |w| where both are present
    of_all = np.column_stack(
        [gravity, gravity_norm, _turn(axes), _correlation(norms[:, 0], norms[:, 1])]
    )
    of_all[~enough[:, 0]] = np.nan
    of_all[~enough[:, 1], -1] = np.nan
    rows = len(imu)
    return np.concatenate(
        [by_signal.reshape(rows, -1), by_sensor.reshape(rows, -1), of_all], axis=1
    )


def _at_50_hz(imu: NDArray[np.float32]) -> _Measured:
    """Means of four samples, of those that have all axes of a sensor: (N, 6, 1000) -> S = 3."""
    sensors = imu.reshape(len(imu), 2, 3, SIGNAL.window_samples)
    measured = np.logical_and.reduce(np.isfinite(sensors), axis=2, keepdims=True)
    whole = np.where(measured, sensors, np.float32(0))
    value = np.zeros((len(imu), 2, 3, _SAMPLES), np.float32)
    n = np.zeros((len(imu), 2, 1, _SAMPLES), np.float32)
    for i in range(_STEP):  # several times faster than reducing an axis of four
        value += whole[..., i::_STEP]
        n += measured[..., i::_STEP]
    value /= np.maximum(n, 1)
    present = (n > 0).astype(np.float32)
    return _Measured(value, present, np.maximum(present.sum(-1), 1))


def _signals(axes: _Measured, gravity: NDArray[np.float32]) -> _Measured:
    """The axes and what is derived from them, in the order of `_SIGNALS`: (N, 2, 6, T)."""
    norm = _length(axes.value, axis=2)
    vertical = np.einsum("nsit,ni->nst", axes.value, gravity)
    horizontal = np.sqrt(np.maximum(norm * norm - vertical * vertical, 0))
    derived = np.stack([norm, vertical, horizontal], axis=2)
    value = np.concatenate([axes.value, derived], axis=2)
    return _Measured(value, axes.present, axes.count)


def _length(vectors: NDArray[np.float32], axis: int = -1) -> NDArray[np.float32]:
    """Euclidean length along an axis."""
    return np.asarray(np.sqrt(np.square(vectors).sum(axis)), np.float32)


def _mean_over(value: NDArray[np.float32], where: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over the last axis of what `where` (1 or 0) chooses; 0 where it chooses nothing."""
    total = np.einsum("...t,...t->...", value, np.broadcast_to(where, value.shape))
    return np.asarray(total / np.maximum(where.sum(-1), 1), np.float32)


def _steps(signals: _Measured) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Differences of neighbouring samples per second (jerk), 0 where one of the two is missing,
    and where there are both: (N, 2, S, T - 1) and (N, 2, 1, T - 1)."""
    both = signals.present[..., 1:] * signals.present[..., :-1]
    step = (signals.value[..., 1:] - signals.value[..., :-1]) * (RATE_HZ * both)
    return step, both


def _shape(
    body: NDArray[np.float32], std: NDArray[np.float32], count: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Skewness and excess kurtosis (..., 2); 0 of a flat signal."""
    square = body * body
    scale = np.where(std > FLAT, std, np.inf)
    skewness = np.einsum("nsit,nsit->nsi", square, body) / count / scale**3
    kurtosis = np.einsum("nsit,nsit->nsi", square, square) / count / scale**4
    return np.stack([skewness, np.where(std > FLAT, kurtosis - 3, 0)], axis=-1)


def _order(signals: _Measured) -> NDArray[np.float32]:
    """Minimum, quantiles (linear between samples) and maximum: (..., 7)."""
    ordered = np.sort(np.where(signals.present > 0, signals.value, np.float32(np.inf)), axis=-1)
    at = np.array([0.0, *QUANTILES, 1.0], np.float32) * (signals.count[..., None] - 1)
    low = at.astype(np.intp)  # (N, 2, 1, 7)
    high = np.minimum(low + 1, signals.count[..., None].astype(np.intp) - 1)
    shape = (*signals.value.shape[:3], at.shape[-1])
    below = np.take_along_axis(ordered, np.broadcast_to(low, shape), axis=-1)
    above = np.take_along_axis(ordered, np.broadcast_to(high, shape), axis=-1)
    missing = ~np.isfinite(above)  # of a sensor that is missing altogether
    below[missing] = above[missing] = 0
    return np.asarray(below + (at - low) * (above - below), np.float32)


def _crossings(body: NDArray[np.float32], both: NDArray[np.float32]) -> NDArray[np.float32]:
    """How often a second the signal crosses its mean."""
    above = body > 0
    crossed = (above[..., 1:] != above[..., :-1]).astype(np.float32)
    return _mean_over(crossed, both) * RATE_HZ


def _jerk(step: NDArray[np.float32], both: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean absolute value and standard deviation of the jerk, in unit / s: (..., 2)."""
    n = np.maximum(both.sum(-1), 1)
    mean = step.sum(-1) / n
    square = np.einsum("nsit,nsit->nsi", step, step) / n
    return np.stack([np.abs(step).sum(-1) / n, np.sqrt(np.maximum(square - mean**2, 0))], axis=-1)


def _period(
    body: NDArray[np.float32], std: NDArray[np.float32], present: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Height of the autocorrelation's peak and its lag as a cadence in Hz: (..., 2).

    The peak is chosen where the sum over all pairs of samples is largest, which of a period and its
    multiples takes the shortest; its height is the mean over those pairs, 1 for a perfect period.
    Lags over half of what was measured are not looked at.
    """
    first, last = (round(s * RATE_HZ) for s in CADENCE_LAG_S)
    lags = np.arange(first, last + 1)
    total = _autocorrelation(body)[..., first - 1 : last + 2]
    pairs = _autocorrelation(present)[..., first - 1 : last + 2]
    inner = total[..., 1:-1]
    peak = (inner > total[..., :-2]) & (inner >= total[..., 2:]) & (inner > 0)
    peak &= pairs[..., 1:-1] >= np.maximum(0.5 * present.sum(-1, keepdims=True), 1) - 0.5
    peak &= std[..., None] > FLAT
    best = np.where(peak, inner, 0).argmax(-1)[..., None]
    found = np.take_along_axis(peak, best, -1)[..., 0]
    pairs = np.broadcast_to(pairs[..., 1:-1], inner.shape)
    mean = np.take_along_axis(inner, best, -1) / np.maximum(np.take_along_axis(pairs, best, -1), 1)
    height = np.where(found, mean[..., 0] / np.maximum(std, FLAT) ** 2, 0)
    cadence = np.where(found, RATE_HZ / lags[best[..., 0]], np.nan)
    return np.stack([height, cadence], axis=-1).astype(np.float32)


def _autocorrelation(value: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums of products at lags 0 to T - 1 along the last axis, by way of the spectrum."""
    spectrum = np.fft.rfft(value, _FFT)
    power = spectrum.real**2 + spectrum.imag**2
    return np.asarray(np.fft.irfft(power, _FFT)[..., :_SAMPLES], np.float32)


def _spectrum(
    body: NDArray[np.float32], std: NDArray[np.float32], present: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Dominant frequency, its share, entropy, and the energy in `BANDS_HZ`: (..., 3 + bands).

    Of the Hann-tapered signal between 0.3 and 15 Hz. Energies are parts of the variance: a
    sinusoid of amplitude A inside one band has A^2 / 2 there. Share: the energy within 0.3 Hz of
    the dominant frequency, of all. Entropy: 0 for a single frequency, 1 for white noise.
    """
    frequency = np.fft.rfftfreq(_FFT, 1 / RATE_HZ)
    used = (frequency >= BANDS_HZ[0][0]) & (frequency < BANDS_HZ[-1][1])
    frequency = frequency[used]
    taper = _hann(present)
    spectrum = np.fft.rfft(body * taper, _FFT)[..., used]
    power = spectrum.real**2 + spectrum.imag**2
    power = power * (2 / _FFT / np.maximum((taper**2).sum(-1, keepdims=True), 1e-6))
    flat = std <= FLAT
    total = np.where(flat, 1, np.maximum(power.sum(-1), 1e-12))
    share = power / total[..., None]
    entropy = -(share * np.log(share + 1e-12)).sum(-1) / np.log(len(frequency))
    dominant = power.argmax(-1)
    running = np.concatenate([np.zeros_like(power[..., :1]), power.cumsum(-1)], axis=-1)
    reach = round(0.3 * _FFT / RATE_HZ)
    near = _between(running, dominant - reach, dominant + reach + 1)
    edges = np.searchsorted(frequency, [low for low, _ in BANDS_HZ] + [BANDS_HZ[-1][1]])
    energy = running[..., edges[1:]] - running[..., edges[:-1]]
    out = np.stack([frequency[dominant], near / total, entropy], axis=-1)
    out[flat] = (np.nan, 0, 0)
    return np.concatenate([out, energy], axis=-1).astype(np.float32)


def _between(
    running: NDArray[np.float32], start: NDArray[np.intp], stop: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Difference of running sums (..., K + 1) at clipped positions (...)."""
    last = running.shape[-1] - 1
    ends = (np.clip(i, 0, last)[..., None] for i in (stop, start))
    upper, lower = (np.take_along_axis(running, i, -1)[..., 0] for i in ends)
    return np.asarray(upper - lower, np.float32)


def _hann(present: NDArray[np.float32]) -> NDArray[np.float32]:
    """A Hann taper from the first to the last sample present, 0 in the gaps between."""
    some = present > 0
    first = some.argmax(-1)[..., None]
    length = present.shape[-1] - some[..., ::-1].argmax(-1)[..., None] - first
    phase = (np.arange(present.shape[-1], dtype=np.float32) - first + 0.5) / length
    return np.asarray(np.sin(np.pi * phase) ** 2 * present, np.float32)


def _correlations(covariance: NDArray[np.float32], std: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pearson correlation of each pair of axes (..., 3); 0 where one of them is flat."""
    scale = np.where(std > FLAT, std, np.inf)
    return np.stack([covariance[..., i, j] / scale[..., i] / scale[..., j] for i, j in _PAIRS], -1)


def _correlation(x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pearson correlation (N,) of centred signals (N, T); 0 where one of them is flat."""
    xx, yy, xy = ((a * b).mean(-1) for a, b in ((x, x), (y, y), (x, y)))
    lively = (xx > FLAT**2) & (yy > FLAT**2)
    return np.where(lively, xy / np.sqrt(np.where(lively, xx * yy, 1)), 0)


def _turn(axes: _Measured) -> NDArray[np.float32]:
    """Angle in rad between the mean accelerations of the first and the last third of what was
    measured (N,): how far the device was tilted meanwhile, as in sitting down or falling."""
    present = axes.present[:, 0, 0]
    rank = present.cumsum(-1)
    third = axes.count[:, 0] / 3
    first = present * (rank <= third)
    last = present * (rank > 2 * third)
    a, b = (np.einsum("nit,nt->ni", axes.value[:, 0], part) for part in (first, last))
    across = _length(np.cross(a, b))
    return np.asarray(np.arctan2(across, (a * b).sum(-1)), np.float32)
