"""Statistics of searches of designs."""
