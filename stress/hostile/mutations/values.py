"""Values that a JSON, YAML or CSV file can hold and that a reader may not expect."""

from __future__ import annotations

from random import Random
from typing import Any

CANARY = "canary"
"""The name of the file that any code in a hostile folder would create."""

ESCAPES = (
    *("\x1b[31mred", "\x1b[2J\x1b[H", "\x1b]0;title\x07", "\x1b]8;;http://evil.test\x1b\\link"),
    *("\x1b]52;c;ZXZpbA==\x07", "\x1bP$q\x1b\\", "\x9b31m", "\x90q\x9c", "a\rb", "a\x08\x08b"),
    *("\x07", "\x00", "a\x00b", "\x7f", "\x0b\x0c", "\x85", "\u2028\u2029", "\u202eabc\u2066"),
    *("\u200b\u200d\ufeff", "\u061c\u200f", "\U000e0041", "a\u0300" * 40, "\ud800", "\udfff\ud800"),
    *("\ufdd0", "\uffff", "\U0010ffff", "\x1b", "\x1b[", "a\nb", "\t", "\x1a", "\x04"),
)
"""Control, format, surrogate and unassigned characters (Unicode categories Cc, Cf, Cs, Cn)."""

MARKUP = (
    *("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</style><script>x</script>"),
    *("<svg onload=alert(1)>", "javascript:alert(1)", "&#x3c;script&#x3e;", "]]><script>", "-->"),
    *('<iframe src="http://evil.test">', "<base href=//evil.test>", "<meta http-equiv=refresh>"),
    *("' onmouseover='x", "<!--", "<![CDATA[", "<?xml version='1.0'?>", "&xxe;", "</title><b>"),
    *("[x](javascript:alert(1))", "|a|b|", "\\input{/etc/passwd}", "$\\frac{1}{0$", "$", "\\"),
    *(
        "{{ 7 * 7 }}",
        "{% for i in range(9) %}",
        "{0.__class__}",
        "%s%n",
        "${HOME}",
        "$(id)",
        "`id`",
    ),
    *('=HYPERLINK("http://evil.test")', "+1+1", "-1", "@SUM(A1)", "=cmd|' /C calc'!A0", "\t=1"),
)
"""Texts that HTML, SVG, Markdown, LaTeX, templates, shells and spreadsheets take for commands."""

PATHS = (
    *(
        "..",
        ".",
        "/",
        "",
        " ",
        "../secret/secret.txt",
        "../../secret",
        "../../../secret/secret.txt",
    ),
    *("{outside}/secret.txt", "{outside}", "{outside}/model", "file://{outside}/secret.txt"),
    *("/dev/zero", "/dev/stdin", "/proc/self/environ", "/etc/passwd", "~/.ssh/id_rsa", "~root"),
    *("./x/../../secret/secret.txt", "..\\..\\secret", "C:\\x", "\\\\host\\share", "//host/share"),
    *("x" * 300, "x/" * 2000, "é" * 200, "a\nb", "-rf", "--out", "con", "a" + "\u202e" + "txt"),
    *("http://evil.test/x", "https://evil.test/x.yaml", "hf://evil/x", "s3://evil/x", "evil/model"),
    *("canary_module", "canary_module.Model", "evil/model--canary_module.Model", "os.system"),
)
"""Names of files, addresses and modules; ``{outside}`` is a folder that nothing may open."""

NUMBERS = (
    *(0, -0.0, -1, 1, 2, 7, 0.5, 0.999999, 1.5, 1e-320, 1e-45, 1e16, 1e300, -1e308, 3.4e39),
    *(float("inf"), float("-inf"), float("nan"), 127, 128, 255, 256, 2**15, 2**16, 2**31 - 1),
    *(2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63), -(2**63) - 1, 10**9, 10**12),
    *(10**30, 10**400, -(10**400)),
)
"""Limits of the integer and floating point types of C, IEEE 754, NumPy and JSON readers."""

WORDS = (
    *("", "null", "true", "yes", "no", "on", "NaN", "Infinity", "1e5", "0x10", "0o7", "1_000"),
    *("1:30", "2020-01-01", "None", "\u0661\u0662", "auto", "cpu", "cuda:0", "meta", "all", "é"),
    *("e\u0301", "K", "ﬁ", "İ", "ß", "💥", "a" * 100_000, "ab " * 20_000, "label", "row", "text"),
)
"""Words that YAML 1.1, Python or a library reads as something else, and long ones."""


def scalar(random: Random) -> Any:
    """A text, number, truth value or null."""
    pools: tuple[tuple[Any, ...], ...] = (ESCAPES, MARKUP, PATHS, NUMBERS, WORDS)
    pools += ((None, True, False), NUMBERS)
    return random.choice(random.choice(pools))


def value(random: Random, depth: int = 0) -> Any:
    """Any JSON value; some are large, deep or wide."""
    kind = random.randrange(12 if depth < 3 else 8)
    if kind < 8:
        return scalar(random)
    if kind == 8:
        return [value(random, depth + 1) for _ in range(random.randrange(4))]
    if kind == 9:
        return {key(random): value(random, depth + 1) for _ in range(random.randrange(4))}
    if kind == 10:
        return [scalar(random)] * random.choice((100, 10_000, 300_000))
    nested: Any = scalar(random)
    for _ in range(random.choice((5, 90, 190, 900))):
        nested = {"a": nested} if random.random() < 0.5 else [nested]
    return nested


def key(random: Random) -> str:
    """The name of a field or column."""
    names = (
        *ESCAPES,
        *MARKUP,
        *PATHS,
        *WORDS,
        "__class__",
        "__init__",
        "__proto__",
        "<<",
        "format",
    )
    return random.choice(names)
