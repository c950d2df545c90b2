"""Commands that use finished runs."""
