"""Inputs of every kind that a hand would not think of, and what the command line does with them."""
