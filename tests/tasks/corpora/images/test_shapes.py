"""``builtin/shapes``: the same images for the same seed, and shapes of the right area."""

from __future__ import annotations

from collections import Counter
from math import pi, sqrt

import numpy as np
import pytest

from iwlora.errors import IwloraError
from iwlora.inputs.images import open_image
from iwlora.tasks import TaskSpec, load
from iwlora.tasks.corpora.images.shapes import LABELS, generate, inside
from iwlora.tasks.kinds.contract import IMAGE

pytestmark = pytest.mark.quick


def test_rows_follow_from_seed_and_sizes() -> None:
    first, again, other = (generate(seed, 50, 10, 10) for seed in (0, 0, 1))
    assert first == again
    images = {content for rows in (*first.values(), *other.values()) for content, _ in rows}
    assert len(images) == 2 * 70, "no image occurs twice"
    assert Counter(label for _, label in first["train"]) == dict.fromkeys(range(5), 10)
    with pytest.raises(IwloraError, match="test=-1: accepted are 0 to 100,000 rows"):
        generate(test=-1)


@pytest.mark.parametrize(
    ("shape", "area"),
    [("disc", pi), ("ring", 0.64 * pi), ("square", 2), ("triangle", 3 * sqrt(3) / 4)],
)
def test_shapes_have_the_area_of_their_formula(shape: str, area: float) -> None:
    side = np.linspace(-1.2, 1.2, 1201)
    u, v = np.meshgrid(side, side)
    assert inside(shape, u, v).mean() * 2.4**2 == pytest.approx(area, rel=0.01)


def test_the_task_is_one_of_images() -> None:
    task = load(TaskSpec(name="builtin/shapes", max_train=20, grammar_seed=3), seed=0)
    assert (task.kind.name, task.labels, task.reported) == (
        "image-classification",
        LABELS,
        ("test",),
    )
    row = task.splits["train"][0]
    image, facts = open_image(row[IMAGE]["bytes"])
    assert facts.digest == row["image"]
    assert image.size == (32, 32)
