"""Lines of code per file: without blank lines, comments and docstrings.

``python tests/lines_of_code.py`` prints the largest files, the folders and the sum.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections import Counter
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "iwlora"
_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def lines_of_code(text: str) -> int:
    """Count the lines that hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            match node.body[:1]:
                case [ast.Expr(value=ast.Constant(value=str()), lineno=first, end_lineno=last)]:
                    lines.difference_update(range(first, (last or first) + 1))
    return len(lines)


def count(source: Path = SOURCE) -> dict[Path, int]:
    """Lines of code of every source file."""
    return {path: lines_of_code(path.read_text("utf-8")) for path in sorted(source.rglob("*.py"))}


if __name__ == "__main__":
    counts = Counter({path.relative_to(SOURCE): lines for path, lines in count().items()})
    for path, lines in counts.most_common(10):
        print(f"{lines:>6,} {path}")
    folders: Counter[Path] = Counter()
    for path, lines in counts.items():
        folders[path.parent] += lines
    print()
    for folder, lines in sorted(folders.items()):
        print(f"{lines:>6,} {folder}")
    print(f"\n{counts.total():>6,} in all")
