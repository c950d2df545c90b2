"""Predictions of a run: for the splits that it is scored on, and for new rows."""
