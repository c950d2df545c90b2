"""How numbers are written in tables, reports and messages: durations, sizes, scores."""

from __future__ import annotations

from iwlora.results.metric_direction import oriented

_PERCENTAGES = (
    "accuracy f1 matthews pearson spearman precision recall exact_match rouge bleu chrf".split()
)


def display_scale(metric: str) -> float:
    """100 for a metric that is usually reported in points, 1 for any other, such as a loss.

    >>> display_scale("accuracy_mismatched"), display_scale("loss")
    (100.0, 1.0)
    """
    return 100.0 if any(name in metric for name in _PERCENTAGES) else 1.0


def as_printed(metric: str, value: float) -> float:
    """A score or a difference as it is printed, in points where it is a share; larger is better.

    >>> as_printed("accuracy", 0.5), as_printed("loss", 0.5)
    (50.0, -0.5)
    """
    return oriented(metric, value) * display_scale(metric)


def format_score(metric: str, mean: float, sd: float | None = None) -> str:
    """A mean and its standard deviation: × 100 with two digits, or a loss with four.

    >>> format_score("f1", 0.8125, 0.01), format_score("loss", 0.5)
    ('81.25 ± 1.00', '0.5000')
    """
    text = _scaled(metric, mean)
    return text if sd is None else f"{text} ± {_scaled(metric, sd)}"


def format_difference(metric: str, difference: float, sd: float | None = None) -> str:
    """Like :func:`format_score` for a difference of scores, which has a sign.

    >>> format_difference("f1", 0.0125), format_difference("loss", -0.5)
    ('+1.25', '-0.5000')
    """
    text = _scaled(metric, difference, sign="+")
    return text if sd is None else f"{text} ± {_scaled(metric, sd)}"


def format_interval(metric: str, mean: float, low: float | None, high: float | None) -> str:
    """A difference of scores with its unit and, if there is one, its interval.

    >>> format_interval("f1", 0.0125, 0.002, 0.023), format_interval("loss", -0.5, None, None)
    ('+1.25 points [+0.20, +2.30]', '-0.5000')
    """
    text = format_difference(metric, mean) + (" points" if display_scale(metric) > 1 else "")
    if low is None or high is None:
        return text
    return f"{text} [{format_difference(metric, low)}, {format_difference(metric, high)}]"


def format_gibibytes(size: float) -> str:
    """Bytes in GiB.

    >>> format_gibibytes(1.5 * 2**30)
    '1.50 GiB'
    """
    return f"{size / 2**30:.2f} GiB"


def format_size(metric: str, size: float) -> str:
    """A size of differences in the unit in which scores are printed.

    >>> format_size("f1", 1.0), format_size("accuracy", 0.5), format_size("loss", 0.1)
    ('1 point', '0.5 points', '0.1')
    """
    if display_scale(metric) == 1:
        return f"{size:g}"
    return f"{size:g} point{'s' * (size != 1)}"


def format_p_value(p_value: float) -> str:
    """A p-value with three digits.

    >>> format_p_value(0.03125), format_p_value(0.0004)
    ('0.031', '< 0.001')
    """
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def counted(n: int, noun: str) -> str:
    """A number and what it counts, which takes an s.

    >>> counted(1, "seed"), counted(1200, "row")
    ('1 seed', '1,200 rows')
    """
    return f"{n:,} {noun}{'s' * (n != 1)}"


def _scaled(metric: str, value: float, sign: str = "") -> str:
    digits = 2 if display_scale(metric) > 1 else 4
    rounded = round(value * display_scale(metric), digits) + 0.0  # + 0.0: never "-0.00"
    return f"{rounded:{sign}.{digits}f}"
