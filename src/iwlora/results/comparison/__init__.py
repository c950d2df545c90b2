"""A comparison: its files, the runs that may stand beside each other, several of them as one."""

from iwlora.results.comparison.load import Comparison, load, load_comparison

__all__ = ["Comparison", "load", "load_comparison"]
