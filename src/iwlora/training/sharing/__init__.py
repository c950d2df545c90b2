"""What others get of a run: the card of an export, and its way to the hub."""
