"""Pools of finished runs: which sources are used is decided when rows are predicted."""
