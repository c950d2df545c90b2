"""Random texts with the cases that metrics of text treat specially."""

from __future__ import annotations

import random

WORDS = "The a cat's cat, an THE dog sat sits sitting on mat. 12% of Ünïcode runs running".split()


def texts(seed: int, count: int, least: int = 1, most: int = 12) -> list[str]:
    """``count`` texts of ``least`` to ``most`` words, none of articles alone."""
    draw = random.Random(seed)
    many = (draw.choices(WORDS, k=draw.randint(least, most)) for _ in range(count))
    return [" ".join([*words, draw.choice(WORDS[6:])]) for words in many]
