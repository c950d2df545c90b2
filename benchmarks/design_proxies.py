"""How well numbers that are known before training order the scores of mixtures.

    iwlora measure --model builtin/minilm --task builtin/entailment --out importance.json
    python benchmarks/design_proxies.py FOLDER... --importance importance.json

Each folder is a comparison whose arms are mixtures. Runs of one seed are one draw. Prints a
Markdown table. The report of ``iwlora design`` has such a table of all designs of its search, with
the gradient at the start too.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from iwlora.compare.statistics.designs.proxies import (
    SENSITIVITY,
    layer_parameters,
    proxy_rows,
    sensitivity_proxy,
)
from iwlora.compare.statistics.designs.rank_correlations import ProxyRow
from iwlora.results.comparison import load
from iwlora.results.metric_direction import oriented
from iwlora.results.sensitivity import Sensitivity


def proxies_of(folders: Sequence[Path], sensitivity: Sensitivity) -> list[ProxyRow]:
    """The table of all finished runs of mixtures that have a score.

    Raises:
        ValueError: there are fewer than three.
    """
    counts: list[dict[str, int]] = []
    scores: list[float] = []
    draws: list[int] = []
    numbers: dict[tuple[Path, int], int] = {}
    for folder in folders:
        for result in (run.result for run in load(folder).runs):
            count = layer_parameters(result)
            if result.score is not None and count:
                counts.append(count)
                scores.append(oriented(result.primary_metric, result.score))
                draws.append(numbers.setdefault((folder, result.seed), len(numbers)))
    layers = dict.fromkeys(layer for count in counts for layer in count)
    of_layers = {layer: sensitivity.of_block(layer) for layer in layers}
    proxies = {SENSITIVITY: sensitivity_proxy(counts, of_layers)}
    return proxy_rows(counts, scores, proxies, draws)


def table(rows: Sequence[ProxyRow]) -> str:
    """The rows in Markdown."""
    lines = [
        "| proxy | Spearman's ρ [95% interval over draws] | permuted importance: mean ρ, p |",
        "|---|---|---|",
    ]
    for row in rows:
        found = row.correlation
        interval = "too few draws"
        if found.low is not None and found.high is not None:
            interval = f"{found.low:+.2f}, {found.high:+.2f}"
        permuted = "–"
        if row.permuted_rho is not None:
            permuted = f"{row.permuted_rho:+.2f}, {row.p_value:.3f}"
        lines.append(f"| {row.name} | {found.rho:+.2f} [{interval}] | {permuted} |")
    counts = rows[0].correlation
    return "\n".join([*lines, f"\n{counts.runs} runs, {counts.draws} draws"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--importance", required=True, help="a file of iwlora measure")
    given = parser.parse_args(arguments)
    print(table(proxies_of(given.folders, Sensitivity.load(given.importance))))


if __name__ == "__main__":
    main()
