"""Automatic relevance determination for low-rank updates: its formulas, and its callback."""
