"""Texts that YAML may take for something else."""

from __future__ import annotations

from hypothesis import strategies as st

OTHER_TYPES = "2e-4 1e3 no on y ~ null True 010 0o7 0x1F 1_000 1:30 .inf .nan - = << 2001-01-01 5e"
SYNTAX = "# ' \" [ { &a *a !x | > % @ ` a:b"
tricky = st.sampled_from(["", " ", "a: b", "a #b", *OTHER_TYPES.split(), *SYNTAX.split()])
