"""The preprocessing contract: what the encoder is fed, in one frozen record.

The bundle's manifest and the encoder's ONNX metadata both carry it; `edge.bundle` compares them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

CHANNELS = ("ax", "ay", "az", "gx", "gy", "gz")


@dataclass(frozen=True)
class SignalSpec:
    """Shape and meaning of one window of signal."""

    rate_hz: int = 200
    """Rate of the grid that every source is resampled to."""

    window_s: float = 5.0
    """Length of a window; 200 Hz x 5 s = 1000 samples (AURA-MFM, section 4)."""

    channels: tuple[str, ...] = CHANNELS
    """Order of the rows of a window."""

    units: tuple[str, ...] = ("m/s^2",) * 3 + ("rad/s",) * 3
    """Unit of each row; the accelerometer keeps gravity."""

    missing: str = "NaN"
    """How a missing sample (a gap) or a missing sensor is marked in a window."""

    @property
    def window_samples(self) -> int:
        """Samples in a window."""
        return round(self.window_s * self.rate_hz)

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers, as stored in the manifest and the ONNX metadata."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


SIGNAL = SignalSpec()
"""The one contract this runtime implements."""
