"""Durations: how they are written, and how long something still takes."""

from __future__ import annotations


def format_duration(seconds: float) -> str:
    """Wall time in at most two units.

    >>> format_duration(9.26), format_duration(200), format_duration(3 * 3600 + 59)
    ('9.3 s', '3 min 20 s', '3 h 00 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def seconds_left(done: float, total: float, seconds: float) -> float | None:
    """How long the rest takes if it goes on like what is done; None before anything is.

    >>> seconds_left(2, 5, 10.0)
    15.0
    """
    return seconds / done * (total - done) if done > 0 else None
