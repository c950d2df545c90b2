"""Images as grids of codes, and the transformers that generate such codes."""
