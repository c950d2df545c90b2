"""Comparison folders with plausible numbers, and measurements."""

from comparison_folders import (  # noqa: F401
    comparison_in,
    comparison_of,
    folder,
    sensitivity,
    sensitivity_of,
)
