"""Random inputs for the command line, and the judge of how it handles them."""
