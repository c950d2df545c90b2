"""How well numbers that are known before training order the designs of a search."""
