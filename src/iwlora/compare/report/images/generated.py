"""Generated images in a report: a sheet of each arm, and how good they are beside real images."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

from iwlora.compare.number_format import format_score
from iwlora.compare.report.images.thumbnails import Thumbnail
from iwlora.compare.report.tables.table import EMPTY, Table
from iwlora.results import layout
from iwlora.results.comparison import Comparison
from iwlora.results.run import Run
from iwlora.results.run.image_scores import GENERATED, HELD_OUT, TRAINING, ImageScores

_distance = "{:.3g}".format


def sample_sheets(comparison: Comparison) -> list[Thumbnail]:
    """The sheet of generated images of the first run of each arm that has one."""
    sheets = {}
    for run in comparison.runs:
        if run.result.label not in sheets and (content := run.samples()) is not None:
            text = f"{run.result.label}, seed {run.result.seed}"
            sheets[run.result.label] = Thumbnail(text, content)
    return list(sheets.values())


def image_score_table(comparison: Comparison) -> Table | None:
    """The scores of the generated images of each arm, as means over its scored runs.

    The last row has those of real images, which show what can be reached. None where no run has
    scores.
    """
    arms: dict[str, list[ImageScores]] = {}
    for run in comparison.runs:
        if (found := run.image_scores()) is not None:
            arms.setdefault(run.result.label, []).append(found)
    if not arms:
        return None
    rows = [[label, str(len(found)), *_cells(found, GENERATED)] for label, found in arms.items()]
    scored = [scores for found in arms.values() for scores in found]
    first = scored[0]
    rows.append(["real images", EMPTY, *_cells([first], HELD_OUT, distance_of=TRAINING)])
    head = ["arm", "scored runs", "Fréchet distance", "recognized", "distance within a class"]
    caption = (
        f"{first.images[GENERATED]:,} images of a run, beside {first.images[HELD_OUT]:,} held-out "
        f"ones. Fréchet distance: to held-out images, lower is better; of real images, that of "
        f"the training images. Recognized: whose class the classifier names, × 100. Distance "
        f"within a class: the closer to that of real images, the better. Features: "
        f"{first.extractor}. Classifier: {first.classifier}."
    )
    left_out = dict.fromkeys(reason for scores in scored for reason in scores.left_out)
    caption += "".join(f" Left out: {reason}." for reason in left_out)
    if any(scores.setting != first.setting for scores in scored):
        caption += " The runs were scored with other features or images: do not compare them."
    return Table("Scores of generated images", caption, head, rows)


def unscored_images(comparison: Comparison) -> list[str]:
    """How the arms get scores of their generated images that have none; [] where all have."""
    first: dict[str, Run] = {}
    scored = set()
    for run in comparison.runs:
        if run.samples() is not None:
            first.setdefault(run.result.label, run)
        if run.image_scores() is not None:
            scored.add(run.result.label)
    without = {label: run for label, run in first.items() if label not in scored}
    if not without:
        return []
    folder = next(iter(without.values())).folder
    assert folder is not None
    source, to = (shlex.quote(str(path)) for path in (folder, layout.generated_folder(folder)))
    return [
        f"the generated images of {', '.join(without)} have no scores yet; 'iwlora generate "
        f"{source} --count 200 --scores --out {to}' computes those of a run, and the next report "
        "has them"
    ]


def _cells(found: Sequence[ImageScores], of: str, distance_of: str | None = None) -> list[str]:
    """(Fréchet distance, recognized, distance within a class), as means over runs."""
    accuracies = [scores.accuracy.get(of) for scores in found]
    return [
        _mean((scores.frechet_distance.get(distance_of or of) for scores in found), _distance),
        _mean(accuracies, lambda mean: format_score("accuracy", mean)),
        _mean((scores.mean_diversity(of) for scores in found), _distance),
    ]


def _mean(values: Iterable[float | None], form: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None]
    return form(fmean(known)) if known else EMPTY
