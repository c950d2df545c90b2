"""Runs a comparison's plan: which run starts when, in which process or on which machine."""
