"""Executes the runs of a comparison in packs: many in one process, over one frozen model."""
