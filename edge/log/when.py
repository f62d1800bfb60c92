"""Times as people write and read them: "2h", "yesterday", "2026-11-21 14:30", in local time."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, time, timedelta

from firmware_bridge.errors import InputError

_UNITS_S = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_AGO = re.compile(rf"(\d+(?:\.\d+)?)\s*({'|'.join(_UNITS_S)})(?:\s+ago)?")
_DAYS_AGO = {"today": 0, "yesterday": 1}

FORMS = '"2h" or "3d" (ago), "today", "yesterday", "14:30", "2026-11-21", "2026-11-21 14:30"'
"""What can be written, for help texts and errors."""


def moment_of(text: str, now_utc_s: float, at_end: bool = False) -> float:
    """The time that a text means, in UTC seconds since 1970.

    Args:
        text: one of `FORMS`; ISO 8601 with seconds and an offset from UTC too.
        now_utc_s: what "ago" and "today" count from.
        at_end: of a text that names a whole day, its end rather than its start.

    Raises:
        InputError: it means no time.
    """
    written = text.strip().lower()
    if ago := _AGO.fullmatch(written):
        return now_utc_s - float(ago[1]) * _UNITS_S[ago[2]]
    today = local(now_utc_s).date()
    try:
        day = _day(written, today)
        if day is not None:
            first, after = day_span(day)
            return after if at_end else first
        if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", written):
            clock = time.fromisoformat(written.zfill(len(written) + (written[1] == ":")))
            return datetime.combine(today, clock).timestamp()
        return datetime.fromisoformat(text.strip()).timestamp()  # local unless it says an offset
    except (ValueError, OverflowError):
        raise InputError(f"{text!r} is no time; write {FORMS}") from None


def day_of(text: str, now_utc_s: float) -> date:
    """The day that a text means: "today", "yesterday" or "2026-11-21".

    Raises:
        InputError: it means no day.
    """
    try:
        day = _day(text.strip().lower(), local(now_utc_s).date())
    except ValueError:
        day = None
    if day is None:
        raise InputError(f'{text!r} is no day; write "today", "yesterday" or "2026-11-21"')
    return day


def _day(written: str, today: date) -> date | None:
    """The day a text names, None if it is none; ValueError of a day that does not exist."""
    if written in _DAYS_AGO:
        return today - timedelta(days=_DAYS_AGO[written])
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", written):
        return date.fromisoformat(written)
    return None


def day_span(day: date) -> tuple[float, float]:
    """Start and end of a local day, in UTC seconds; 23 to 25 h apart where clocks change."""
    first, after = (datetime.combine(day + timedelta(days=n), time.min).timestamp() for n in (0, 1))
    return first, after


def ticks(start_utc_s: float, end_utc_s: float, most: int) -> list[float]:
    """Round local clock times from `start_utc_s` to `end_utc_s`, at most `most` (2 or more) of
    them: every minute, 5 minutes, ... 6 hours, whatever is the finest that fits, or a day."""
    midnight, _ = day_span(local(start_utc_s).date())
    for minutes in (1, 5, 10, 15, 30, 60, 120, 180, 360):
        step_s = 60.0 * minutes
        first = midnight + math.ceil((start_utc_s - midnight) / step_s) * step_s
        n = math.floor((end_utc_s - first) / step_s) + 1
        if n <= most:
            break
    else:
        step_s, n = _UNITS_S["d"], min(n, most)
    return [first + i * step_s for i in range(max(n, 0))]


def local(utc_s: float) -> datetime:
    """A time in the zone of this machine, aware of its offset then."""
    return datetime.fromtimestamp(utc_s, UTC).astimezone()


def local_text(utc_s: float) -> str:
    """Local time and UTC offset: "2026-11-21 14:30:05 +01:00"."""
    text = local(utc_s).isoformat(" ", timespec="seconds")
    return f"{text[:19]} {text[19:]}"


def duration_text(seconds: float) -> str:
    """A length of time in its two largest units: "8 s", "2 min 05 s", "7 h 30 min", "3 d 02 h"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, s = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {s:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours:02d} h"
