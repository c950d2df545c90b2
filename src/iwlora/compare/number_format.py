"""How numbers are written in tables, reports and messages: durations, sizes, scores."""

from __future__ import annotations

_PERCENTAGES = (
    *("accuracy", "f1", "matthews", "pearson", "spearman", "precision", "recall"),
    *("exact_match", "rouge", "bleu"),
)


def display_scale(metric: str) -> float:
    """100 for a metric that is usually reported in points, 1 for any other, such as a loss.

    >>> display_scale("accuracy_mismatched"), display_scale("loss")
    (100.0, 1.0)
    """
    return 100.0 if any(name in metric for name in _PERCENTAGES) else 1.0


def format_score(metric: str, mean: float, sd: float | None = None) -> str:
    """A mean and its standard deviation: × 100 with two digits, or a loss with four.

    >>> format_score("f1", 0.8125, 0.01), format_score("loss", 0.5)
    ('81.25 ± 1.00', '0.5000')
    """
    mean_text = f"{_rounded(metric, mean):.{_digits(metric)}f}"
    if sd is None:
        return mean_text
    return f"{mean_text} ± {sd * display_scale(metric):.{_digits(metric)}f}"


def format_difference(metric: str, difference: float) -> str:
    """A difference of scores with its sign: × 100 with two digits, or of a loss with four.

    >>> format_difference("f1", 0.0125), format_difference("loss", -0.5)
    ('+1.25', '-0.5000')
    """
    return f"{_rounded(metric, difference):+.{_digits(metric)}f}"


def format_duration(seconds: float) -> str:
    """Wall time in at most two units.

    >>> format_duration(9.26), format_duration(200), format_duration(3 * 3600 + 59)
    ('9.3 s', '3 min 20 s', '3 h 00 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def format_gibibytes(size: float) -> str:
    """Bytes in GiB.

    >>> format_gibibytes(1.5 * 2**30)
    '1.50 GiB'
    """
    return f"{size / 2**30:.2f} GiB"


def format_p_value(p_value: float) -> str:
    """A p-value with three digits.

    >>> format_p_value(0.03125), format_p_value(0.0004)
    ('0.031', '< 0.001')
    """
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _digits(metric: str) -> int:
    return 2 if display_scale(metric) > 1 else 4


def _rounded(metric: str, value: float) -> float:
    return round(value * display_scale(metric), _digits(metric)) + 0.0  # + 0.0: never "-0.00"
