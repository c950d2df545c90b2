"""Make the pictures of the README and the documentation from a real comparison.

    python docs/make_figures.py [--out runs/pictures] [--jobs 2]

The comparison (docs/pictures.yaml) takes about half an hour on two cores. It is continued where
it was interrupted, and not repeated when it is finished.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from iwlora.cli import main as iwlora
from iwlora.compare.report.figures.verdict_paths import plot_verdict_paths
from iwlora.compare.report.sequential import sequential_verdict
from iwlora.compare.statistics.analysis import analyze
from iwlora.results.comparison.record import StoppingRule
from iwlora.results.comparison.score_tables import read_scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
IMAGES = HERE / "images"

# The folders of src/iwlora from the bottom to the top: a folder imports from rows below its own.
LAYERS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("errors", "the exception that commands print"),),
    (("inputs", "reads files from outside"),),
    (("results", "format and names of stored files"), ("tasks", "data, prompts, metrics")),
    (("sites", "matrices of a model"), ("distributed", "several processes")),
    (("sensitivity", "hooks, estimators, stopping rule"),),
    (("importance", "sensitivity → weights, ranks"),),
    (("penalty", "‖B A‖² in closed form, callback"),),
    (("methods", "one file a method"),),
    (("training", "recipe → run → checkpoints"),),
    (("compare", "statistics, plan, execute, report"),),
    (("advice", "what to train"), ("design", "mixtures"), ("compose", "pools of runs")),
    (("cli", "one file a command"),),
)


def layers() -> Figure:
    """The layers of the code, the highest on top."""
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

    figure = Figure(figsize=(7.0, 6.0))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0.0, 10.0), ylim=(-0.2, len(LAYERS)))
    axes.set_axis_off()
    for height, row in enumerate(LAYERS):
        width = 9.0 / len(row)
        for column, (name, contents) in enumerate(row):
            left = 0.3 + column * width
            axes.add_patch(
                FancyBboxPatch(
                    (left + 0.1, height + 0.1), width - 0.2, 0.7, boxstyle="round,pad=0.05",
                    facecolor="#dbe9f6", edgecolor="#0072B2",
                )
            )  # fmt: skip
            text = f"$\\bf{{{name}}}$   {contents}"
            axes.text(left + width / 2, height + 0.45, text, ha="center", va="center", fontsize=9)
    axes.annotate(
        "", (9.7, 0.2), (9.7, len(LAYERS) - 0.3), arrowprops={"arrowstyle": "->", "lw": 1.5}
    )
    axes.text(9.82, len(LAYERS) / 2, "imports", rotation=270, ha="center", va="center", fontsize=9)
    return figure


def verdict_paths() -> Figure:
    """The paths of a sequential comparison, from the scores in docs/verdicts.csv."""
    (scores,) = read_scores(HERE / "verdicts.csv")
    rule = StoppingRule(difference=0.5)
    (task,) = analyze([replace(scores, stop=rule)]).tasks
    print(sequential_verdict(task))
    return plot_verdict_paths(task.differences, rule)


def main() -> None:
    """Run the comparison if necessary and write docs/images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs/pictures", help="folder of the comparison")
    parser.add_argument("--jobs", default="2", help="runs at once; default 2")
    options = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    layers().savefig(IMAGES / "layers.png", dpi=110)
    verdict_paths().savefig(IMAGES / "verdicts.png", dpi=110)
    iwlora(["compare", str(HERE / "pictures.yaml"), "--out", options.out, "--jobs", options.jobs])
    for stem, name in (("importance-iw-lora", "importance"), ("differences", "differences")):
        picture = Path(options.out) / "figures" / f"{stem}.png"
        (IMAGES / f"{name}.png").write_bytes(picture.read_bytes())


if __name__ == "__main__":
    main()
