"""Which metrics are better when they are smaller: the only place that knows."""

from __future__ import annotations

import re
from typing import TypeVar

_LOWER = frozenset("loss perplexity ppl nll error mae mse rmse wer cer ter".split())

Values = TypeVar("Values")


def lower_is_better(metric: str) -> bool:
    """Whether a smaller value of a metric is better: a loss, a perplexity, an error.

    >>> lower_is_better("perplexity"), lower_is_better("eval_loss"), lower_is_better("f1")
    (True, True, False)
    """
    return not _LOWER.isdisjoint(re.split(r"[^a-z]+", metric.lower()))


def oriented(metric: str, values: Values) -> Values:
    """Scores or differences of a metric with the sign that makes larger ones better.

    >>> oriented("perplexity", 7.0), oriented("accuracy", 0.7)
    (-7.0, 0.7)
    """
    return -values if lower_is_better(metric) else values  # type: ignore[operator]


def with_direction(metric: str) -> str:
    """The name of a metric, with a remark where a smaller value is better.

    >>> with_direction("perplexity"), with_direction("accuracy")
    ('perplexity (lower is better)', 'accuracy')
    """
    return f"{metric} (lower is better)" if lower_is_better(metric) else metric
