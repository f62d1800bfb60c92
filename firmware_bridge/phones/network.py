"""What the sources over the network share: addresses, and reading what strangers send."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_READINGS = 100_000
"""In a message of Sensor Logger, or rows in an answer of phyphox."""

MAX_NAME_CHARS = 200
"""Of a title or an identifier."""

Floats = NDArray[np.float64]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Address:
    """Where a phone listens, or we do."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def address_of(host: str, port: str) -> Address | None:
    """Where that is; None where it cannot be. The host goes into a URL as it is."""
    is_host = bool(host) and all(c.isalnum() or c in ".-_[]:%" for c in host)
    is_port = port.isascii() and port.isdecimal() and int(port) <= 0xFFFF
    return Address(host, int(port)) if is_host and is_port else None


def json_of(data: bytes) -> Any:
    """What it says, None where it is not JSON."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def rising(rows: Floats, since: float) -> tuple[Floats, int]:
    """The rows whose first column is above `since` and all before, and how many are not."""
    before = np.maximum.accumulate(np.concatenate([[since], rows[:, 0]]))[:-1]
    later = rows[:, 0] > before
    return rows[later], int((~later).sum())
