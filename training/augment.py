"""Augmentation of training windows, on whole batches: (B, 6, 1000) -> (B, 6, 1000).

Applied in the order in which a device would cause it:

    movement   time warp
    mounting   rotation, or tilt and yaw about gravity
    sensor     gain, bandwidth, sample rate, noise, no gyroscope
    cutting    time shift, partial windows

Noise comes after bandwidth and sample rate, although a sensor samples its noise too: windows of
slow sources come here resampled, so noise fills their empty bands. It has to fill those of degraded
windows alike, or a slow source could be told by them.

Nothing is invented. A value is made of measured neighbours only; what is missing (NaN) moves with
the movement around it, and its amount grows where a function here says so.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from edge.spec import SIGNAL
from edge.window import MAX_MISSING, MIN_SPAN_S
from training.augment_config import ABLATIONS, AugmentConfig, add_arguments, config_from

__all__ = ["ABLATIONS", "AugmentConfig", "add_arguments", "augment", "config_from"]

SLOWEST_HZ, FASTEST_HZ = 20.0, 100.0
"""Sample rates of the sensors that rate degradation plays; every octave is as likely."""

ANTI_ALIAS = 0.25
"""Cut-off of a filtered sensor as a fraction of its sample rate. The low-pass here is 12 dB down
at twice its cut-off, which then is the sensor's Nyquist rate."""

LOWEST_CUTOFF_HZ, HIGHEST_CUTOFF_HZ = 5.0, 50.0
"""Cut-offs of the bandwidth augmentation; every octave is as likely."""

SLOWEST_WARP, FASTEST_WARP = 0.8, 1.25
"""Speeds of the time warp: as much slower as faster, and small (see `warp`)."""

MAX_SHIFT_SAMPLES = SIGNAL.rate_hz // 2
"""0.5 s: two and a half patches, so that an activity begins anywhere in a patch."""

_ROUNDING = 1e-2
"""Grid steps: above float32's error for a time in a window."""

_MIN_SAMPLES = round(MIN_SPAN_S * SIGNAL.rate_hz)
_FFT_SAMPLES = 1080
"""A window and a tail of zeros, of factors 2, 3 and 5. The tail is over 10 standard deviations
of the longest low-pass, so a window's end does not wrap into its start."""


def augment(imu: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """A new batch with every window disturbed on its own; with all switched off, a plain copy.

    How many random numbers are drawn depends on the batch's shape alone: runs that differ in one
    switch disturb their windows alike in every other way.

    Args:
        imu: (B, 6, 1000) in m/s^2 and rad/s, NaN where missing; left as it is.
        config: how much of what.
        generator: on the batch's device.
    """
    device, dtype = imu.device, imu.dtype
    numbers = torch.rand(20, len(imu), generator=generator, device=device, dtype=dtype)
    warped, speed, turned, bandlimited, cutoff, resampled, rate, phase, filtered = numbers[:9]
    no_gyro, shifted, shift, cut, part, part_start = numbers[9:15]
    gain, angles = numbers[15:17].T, numbers[17:20].T
    noise = torch.randn(imu.shape, generator=generator, device=device, dtype=dtype)
    imu = imu.clone()

    rows = _chosen(warped, config.time_warp)
    if len(rows):
        imu[rows] = warp(imu[rows], _log_uniform(speed[rows], SLOWEST_WARP, FASTEST_WARP))

    rows = _chosen(turned, 0.0 if config.orientation == "none" else config.rotation)
    if len(rows):
        window = imu[rows]
        if config.orientation == "free":
            turn = rotations(angles[rows])
        else:
            turn = rotations_about_gravity(window, angles[rows], config.max_tilt_deg)
        imu[rows] = rotate(window, turn)

    if config.gain:
        imu *= (1 + config.gain * (2 * gain - 1)).repeat_interleave(3, 1)[:, :, None]

    # Two Gaussian low-passes in a row are one, whose width adds up in squares.
    rate = _log_uniform(rate, SLOWEST_HZ, FASTEST_HZ)
    cutoff = _log_uniform(cutoff, LOWEST_CUTOFF_HZ, HIGHEST_CUTOFF_HZ)
    by_filter = (bandlimited < config.bandwidth) / cutoff**2
    by_rate = ((resampled < config.rate_degradation) & (filtered < 0.5)) / (ANTI_ALIAS * rate) ** 2
    width = (by_filter + by_rate).sqrt()
    rows = width.nonzero()[:, 0]
    if len(rows):
        imu[rows] = low_pass(imu[rows], 1 / width[rows])
    rows = _chosen(resampled, config.rate_degradation)
    if len(rows):
        imu[rows] = remeasure(imu[rows], rate[rows], phase[rows])

    for sigma, sensor in ((config.noise_mps2, slice(0, 3)), (config.noise_rads, slice(3, 6))):
        if sigma:
            imu[:, sensor].add_(noise[:, sensor], alpha=sigma)
    imu[_chosen(no_gyro, config.gyro_dropout), 3:] = torch.nan

    end = _measured_end(imu)
    start = _whole(shift, (end - _MIN_SAMPLES).clamp(0, MAX_SHIFT_SAMPLES))
    start = torch.where(shifted < config.time_shift, start, 0)
    kept = end - start
    shortest = kept.clamp(max=_MIN_SAMPLES)
    short = torch.where(cut < config.partial, shortest + _whole(part, kept - shortest), kept)
    start, kept = start + _whole(part_start, kept - short), short
    rows = (kept < end).nonzero()[:, 0]
    if len(rows):
        imu[rows] = keep_part(imu[rows], start[rows], kept[rows])
    return imu


def _chosen(number: Tensor, fraction: float) -> Tensor:
    """Indices of the windows that an augmentation is done to: (B,) -> (n,)."""
    return (number < fraction).nonzero()[:, 0]


def _log_uniform(number: Tensor, low: float, high: float) -> Tensor:
    """[0, 1) -> [low, high), every octave as likely."""
    return low * (high / low) ** number


def _whole(number: Tensor, largest: Tensor) -> Tensor:
    """[0, 1) -> whole numbers from 0 to `largest`, both included."""
    return torch.minimum((number * (largest + 1)).long(), largest)


def _measured_end(imu: Tensor) -> Tensor:
    """(B,) index after each window's last measured sample; 0 where there is none."""
    index = torch.arange(1, imu.shape[2] + 1, device=imu.device)
    return (index * ~torch.isnan(imu[:, 0])).amax(1)


def rotations(number: Tensor) -> Tensor:
    """(n, 3) uniform in [0, 1) -> (n, 3, 3) rotations, uniform over SO(3).

    By way of unit quaternions: K. Shoemake, "Uniform random rotations", Graphics Gems III (1992).
    """
    long, short = (1 - number[:, 0]).sqrt(), number[:, 0].sqrt()
    a, b = 2 * math.pi * number[:, 1], 2 * math.pi * number[:, 2]
    x, y, z, w = long * a.sin(), long * a.cos(), short * b.sin(), short * b.cos()
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def rotations_about_gravity(imu: Tensor, number: Tensor, max_tilt_deg: float) -> Tensor:
    """A turn about each window's own gravity, then a tilt about a random horizontal axis.

    Gravity's direction is that of the mean acceleration; where nothing is measured or the mean
    vanishes, z stands for it.

    Args:
        imu: (n, 6, 1000) windows.
        number: (n, 3) uniform in [0, 1): the turn (to a full circle), the tilt (from 0 to
            `max_tilt_deg`), the direction of the tilt's axis.
        max_tilt_deg: in degrees.

    Returns:
        (n, 3, 3) rotations.
    """
    gravity = imu[:, :3].nanmean(2)
    known = gravity.norm(dim=1, keepdim=True) > 1e-3  # m/s^2; False for NaN
    z = torch.eye(3, dtype=imu.dtype, device=imu.device)[2]
    up = functional.normalize(torch.where(known, gravity, z), dim=1)
    yaw, tilt, direction = (number * number.new_tensor([2 * math.pi, 1, 2 * math.pi])).T
    # Any horizontal vector will do to start from; the coordinate axis that is furthest from `up`
    # gives one without cancellation.
    aside = functional.one_hot(up.abs().argmin(1), 3).to(up.dtype)
    horizontal = functional.normalize(torch.linalg.cross(up, aside), dim=1)
    axis = (_rotation_about(up, direction) @ horizontal[:, :, None])[:, :, 0]
    return _rotation_about(axis, tilt * math.radians(max_tilt_deg)) @ _rotation_about(up, yaw)


def _rotation_about(axis: Tensor, angle: Tensor) -> Tensor:
    """(n, 3) unit axes and (n,) radians -> (n, 3, 3), Rodrigues' formula."""
    eye = torch.eye(3, dtype=axis.dtype, device=axis.device)
    products: Tensor = torch.linalg.cross(
        axis[:, None].expand(-1, 3, -1), eye.expand(len(axis), 3, 3)
    )
    cross = products.mT  # its columns are axis x each unit vector
    sin, cos = angle.sin()[:, None, None], angle.cos()[:, None, None]
    return cos * eye + sin * cross + (1 - cos) * axis[:, :, None] * axis[:, None]


def rotate(imu: Tensor, turn: Tensor) -> Tensor:
    """(n, 6, 1000) windows, both sensors turned by the same (n, 3, 3) rotations."""
    return (turn[:, None] @ imu.reshape(-1, 2, 3, imu.shape[2])).flatten(1, 2)


def low_pass(imu: Tensor, cutoff_hz: Tensor) -> Tensor:
    """(n, 6, 1000) windows through a Gaussian low-pass, 3 dB down at (n,) `cutoff_hz`.

    A Gaussian, because it rolls off without an edge in the spectrum and without ringing, and two
    of them in a row are a third. Normalised convolution (Knutsson and Westin, CVPR 1993) leaves
    out what is missing and what lies outside of the window, so a constant stays what it is up to
    the edges. Missing samples stay missing, no others become so.
    """
    frequency = torch.fft.rfftfreq(
        _FFT_SAMPLES, 1 / SIGNAL.rate_hz, dtype=imu.dtype, device=imu.device
    )
    response = torch.exp(-math.log(2) / 2 * (frequency / cutoff_hz[:, None, None]) ** 2)

    def smooth(x: Tensor) -> Tensor:
        y: Tensor = torch.fft.irfft(torch.fft.rfft(x, _FFT_SAMPLES) * response, _FFT_SAMPLES)
        return y[:, :, : imu.shape[2]]

    missing = torch.isnan(imu)
    weight = smooth((~missing[:, ::3]).to(imu.dtype))  # one for each sensor
    value = smooth(imu.masked_fill(missing, 0)) / weight.repeat_interleave(3, 1)
    return value.masked_fill(missing, torch.nan)


def remeasure(imu: Tensor, rate_hz: Tensor, phase: Tensor) -> Tensor:
    """What a slower sensor would have made of the windows, back on the grid.

    The windows are sampled at the slow sensor's times and then interpolated as `edge.resample`
    does with sources up to 200 Hz: the same monotone cubics, so the same bands are lost and the
    same images appear in their place.

    A stream goes on beyond its window, so up to one sample before and after the window is taken,
    of the value that the window has at its edge: no value of the window is lost there. At a gap
    and at a padded end the slow sensor's stretch ends with its last sample within, as it would in
    a recording: at most one of its sample periods more is missing on each side.

    Args:
        imu: (n, 6, 1000) windows.
        rate_hz: (n,) sample rates, at most `FASTEST_HZ`.
        phase: (n,) in [0, 1): the time of the first sample in the window, in sample periods.
    """
    length = imu.shape[2]
    period = SIGNAL.rate_hz / rate_hz[:, None]
    phase = phase[:, None]
    count = math.ceil(length * FASTEST_HZ / SIGNAL.rate_hz) + 2
    grid = torch.arange(length, dtype=imu.dtype, device=imu.device)
    time = (torch.arange(-1, count - 1, dtype=imu.dtype, device=imu.device) + phase) * period
    held = time.clamp(0, length - 1)
    beyond = (time - held).abs() > period + _ROUNDING
    slow = _read(imu, held)
    slow = slow.masked_fill(beyond[:, None], torch.nan)
    value = _monotone(slow, grid / period - phase + 1)
    return value.masked_fill(torch.isnan(imu), torch.nan)


def warp(imu: Tensor, speed: Tensor) -> Tensor:
    """(n, 6, 1000) windows in which the same movement runs (n,) `speed` times as fast.

    The same turn in less time is a faster one: the angular rate is multiplied by `speed`. So the
    gyroscope goes on agreeing with how gravity turns through the accelerometer's axes.
    Acceleration keeps its size. What the movement adds to gravity would grow by `speed` squared,
    but nothing here tells the two apart: the window's mean is gravity only of a device that does
    not turn, and where an arm swings or a person sits down, "the rest" is gravity turning;
    scaled, a device at rest would measure more or less than 1 g. Unscaled, a faster window shows
    a movement over a shorter way, as a shorter person makes it, and the warp is kept small.

    A faster window ends sooner, and the rest of it is missing, at most a fifth; a second is left
    of short ones. Of a slower one the end is lost, a padded end stays as long as it is, and a
    gap lasts longer.
    """
    length = imu.shape[2]
    end = _measured_end(imu)
    speed = torch.minimum(speed, ((end - 1) / (_MIN_SAMPLES - 1)).clamp(min=1))[:, None]
    grid = torch.arange(length, dtype=imu.dtype, device=imu.device)
    position = grid * speed
    value = _read(imu, position.clamp(max=length - 1))
    beyond = (position > length - 1) | (grid >= end[:, None])
    value[:, 3:] *= speed[:, None]
    return value.masked_fill(beyond[:, None], torch.nan)


def keep_part(imu: Tensor, start: Tensor, kept: Tensor) -> Tensor:
    """(n, 6, 1000) windows cut to (n,) `kept` samples from (n,) `start`, padded at their end.

    The runtime pads at the end only, so that is where a shifted window lacks what it has moved
    out of: it may start later in its activity, never earlier, and nothing is wrapped around,
    which would make a step that no movement has. A part that lies in a gap, such that the runtime
    would not classify it, is not cut out: that window stays whole.
    """
    length = imu.shape[2]
    grid = torch.arange(length, device=imu.device)
    at = (start[:, None] + grid).clamp(max=length - 1)
    out = imu.gather(2, at[:, None].expand_as(imu))
    beyond = grid >= kept[:, None]
    lost = (torch.isnan(out[:, 0]) & ~beyond).sum(1)
    whole = (lost > MAX_MISSING * kept)[:, None, None]
    return torch.where(whole, imu, out.masked_fill(beyond[:, None], torch.nan))


def _read(imu: Tensor, position: Tensor) -> Tensor:
    """(n, 6, 1000) windows at (n, M) positions in grid steps -> (n, 6, M).

    Cubic (Catmull and Rom 1974), because straight lines would take a tenth of a 30 Hz movement,
    and monotone cubics flatten its peaks; straight beside a gap and at an edge, where a neighbour
    is missing; NaN between two samples of which either is missing.
    """
    padded = functional.pad(imu, (1, 1), value=torch.nan)
    i = position.floor().clamp(0, imu.shape[2] - 2)
    u = (position - i)[:, None]
    at = i.long()[:, None]
    before, left, right, after = (
        padded.gather(2, (at + k).expand(-1, imu.shape[1], -1)) for k in range(4)
    )
    # What the curve adds to the straight line, by the second differences at either end.
    bend = before.sub_(left, alpha=2).add_(right).mul_(u * (1 - u) ** 2)
    bend.addcmul_(after.sub_(right, alpha=2).add_(left), u**2 * (1 - u))
    return torch.lerp(left, right, u).sub_(bend.nan_to_num_(0), alpha=0.5)


def _monotone(x: Tensor, position: Tensor) -> Tensor:
    """(n, 6, K) evenly spaced samples at (n, M) positions in samples -> (n, 6, M).

    As `edge.resample` does it: Hermite cubics whose slope at a sample is the harmonic mean of the
    secants on either side, 0 at an extremum (Fritsch and Butland 1984, for even spacing), and the
    one secant there is beside a gap. NaN between two samples of which either is missing.
    """
    rise = x.diff(dim=2)
    before = functional.pad(rise, (1, 0), value=torch.nan)
    after = functional.pad(rise, (0, 1), value=torch.nan)
    product = before * after
    slope = torch.where(product > 0, 2 * product / (before + after), 0)
    slope = torch.where(torch.isnan(before), after, slope)
    slope = torch.where(torch.isnan(after), before, slope)
    left, right = slope[:, :, :-1], slope[:, :, 1:]
    quadratic, cubic = 3 * rise - 2 * left - right, left + right - 2 * rise
    i = position.floor().clamp(0, x.shape[2] - 2)
    u = (position - i)[:, None]
    at = i.long()[:, None].expand(-1, x.shape[1], -1)
    value = cubic.gather(2, at).mul_(u).add_(quadratic.gather(2, at))
    value.mul_(u).add_(left.gather(2, at))
    return value.mul_(u).add_(x.gather(2, at))
