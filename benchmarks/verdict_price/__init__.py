"""What a verdict costs: recorded runs, and the ways to a verdict that are replayed on them."""
