"""The page of results: the answer in words, the map, the price, and other studies."""

from __future__ import annotations

from collections.abc import Sequence

from iwlora.compare.number_format import counted, format_score
from iwlora.compare.statistics.paired_tests import holm, summarize
from iwlora_study.runner.cells import regime
from iwlora_study.runner.forms import MARGINS, Form
from iwlora_study.runner.page.lessons import Lesson, lessons_list
from iwlora_study.runner.page.markdown import OUTCOME, UNIT, improvement, table
from iwlora_study.runner.page.temperatures import temperature_table
from iwlora_study.runner.scores import CellScores
from iwlora_study.runner.verdicts import Contrast, Finding, contrast, findings, going_on, on_floor


def page(
    stored: Sequence[CellScores],
    forms: Sequence[Form],
    lessons: Sequence[Lesson] = (),
    others: Sequence[str] = (),
) -> str:
    """The whole page as Markdown.

    Args:
        stored: The scores of all cells.
        forms: What the study asks about.
        lessons: What it says to people who do not ask about importance.
        others: The sections of the studies that have other subjects.
    """
    confirmed = _findings(stored, forms, "confirm")
    screened = _findings(stored, forms, "screen")
    parts = [
        "# Results: where does importance pay?",
        answer(confirmed, screened),
        FRAME,
        *_titled("## What to do without importance", _LESSONS, lessons_list(lessons, stored)),
        "## Map: confirmed",
        _confirmed_map(confirmed),
        "## Map: screen",
        _SCREEN,
        map_table(screened) if screened else "No cell with a form of importance is finished.",
        _next(screened),
        "## Secondary outcomes",
        secondary_table(confirmed),
        *_titled("## A temperature instead", _TEMPERATURE, temperature_table(stored, forms)),
        "## All arms",
        _ARMS,
        *(_arms_table(scores) for scores in stored),
        "## The price",
        price_table(stored),
        _lost(stored),
        *(text.strip() for text in others),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


FRAME = """The question is whether "spend capacity where the loss is sensitive" beats LoRA with a
searched learning rate *and* its own control, which has everything but the importance.
[The protocol](study-protocol.md) was written first. [The first study](first-study.md) tested one
form, the penalty of IW-LoRA, on five tasks with ample data, and found no benefit: -0.25 points
(95%: -2.12 to +1.63) from its control with permuted importance. All numbers are of a 22M-parameter
encoder (MiniLM) and small training sets, and this page is made of the stored scores of all runs:

```sh
python study/run.py report
```

*better*: the interval is above 0 against LoRA and against every control. *worse*: it is below 0
against LoRA. *within*: the difference from LoRA is smaller than what matters. *open*: none of these
is shown. *floor*: no arm learned anything, and the cell does not count. Positive differences are
improvements, for losses too."""

_SCREEN = """Leads, not results: 95% intervals of each comparison by itself, so about one in twenty
differs by chance where nothing is there."""

_LESSONS = """Differences between other arms of the same cells, positive where the first arm is
better. Those of the screen are leads, as below. Less than 1 point does not matter here:"""

_TEMPERATURE = """A form that lowers the held-out loss may only make the model less confident. A
temperature, fitted on the official split, does that without training, for LoRA too. So this table
compares arms after it. Its 95% intervals are for each comparison by itself:"""

_ARMS = """Every arm that ran, methods of others too. The learning rates are those that the searches
chose; the differences are improvements of the score over the baseline, in points."""


def answer(confirmed: Sequence[Finding], screened: Sequence[Finding]) -> str:
    """The first lines: what is known, with intervals, and what is not."""
    better = [finding for finding in confirmed if finding.verdict == "better"]
    if better:
        text = "**Importance pays in these regimes.** Improvements with 95% intervals:"
        return text + _list(better)
    if confirmed:
        text = (
            "**In the confirming runs no form of importance beat both LoRA and its own control.**"
        )
        return text + " Improvements with 95% intervals:" + _list(confirmed)
    text = "**No form of importance is confirmed, and none is refuted: no confirming run exists.** "
    if not screened:
        return text + "No form has been screened yet."
    counted_ones = [finding for finding in screened if finding.verdict != "floor"]
    ahead = [finding for finding in counted_ones if finding.verdict == "better"]
    pairs = counted(len(counted_ones), "pair")
    text += f"Of {pairs} of form and regime in the screen, {len(ahead)} "
    text += "is" if len(ahead) == 1 else "are"
    text += " ahead of LoRA and of all its controls"
    return text + (":" + _list(ahead) if ahead else ".")


def _list(found: Sequence[Finding]) -> str:
    return "\n\n" + "\n".join(f"- {_sentence(finding)}" for finding in found)


def _sentence(finding: Finding) -> str:
    form, hardest = finding.form, finding.hardest_control
    text = f"{_capital(form.name)}, {regime(finding.scores.settings)}: "
    if finding.verdict == "floor":
        return text + "no arm learned anything, so this does not count."
    against = f"{improvement(finding.against)} over {finding.against.other}"
    text += (
        f"{finding.verdict}. {_capital(OUTCOME[form.outcome])}, in {UNIT[form.outcome]}: {against}"
    )
    if hardest is not None:
        text += f", and {improvement(hardest)} over its control {hardest.other}"
    return f"{text} ({counted(finding.against.draws, 'draw')})."


def _titled(title: str, introduction: str, text: str) -> list[str]:
    """The parts of a section; none without a text."""
    return [title, introduction, text] if text else []


def _confirmed_map(confirmed: Sequence[Finding]) -> str:
    if confirmed:
        return map_table(confirmed)
    return "No confirming run is finished: nothing on this page is confirmed."


def map_table(found: Sequence[Finding]) -> str:
    """Regime and form: the verdict, with the differences from LoRA and the hardest control."""
    head = "cell,regime,form,outcome,from LoRA,from its control,draws,verdict".split(",")
    rows = []
    for finding in found:
        hardest, form = finding.hardest_control, finding.form
        control = f"{hardest.other}: {improvement(hardest)}" if hardest else "–"
        against = improvement(finding.against)
        if form.against != "lora":
            against = f"{form.against}: {against}"
        rows.append(
            [
                finding.scores.cell.partition("-")[0],
                regime(finding.scores.settings),
                form.name,
                f"{OUTCOME[form.outcome]}, {UNIT[form.outcome]}",
                against,
                control,
                str(finding.against.draws),
                f"**{finding.verdict}**" if finding.verdict == "better" else finding.verdict,
            ]
        )
    return table(head, rows)


def _next(screened: Sequence[Finding]) -> str:
    names = [f"{f.form.name} ({regime(f.scores.settings)})" for f in going_on(screened)]
    if not names:
        return "No pair is ahead of LoRA and of all its controls, so none goes on by the protocol."
    return f"By the rule of the protocol these go on: {'; '.join(names)}."


def secondary_table(confirmed: Sequence[Finding]) -> str:
    """The outcomes that were not chosen as primary, with Holm's correction over all of them."""
    found: list[tuple[Finding, Contrast]] = []
    for finding in confirmed:
        for outcome in MARGINS:
            if outcome != finding.form.outcome:
                arm, other = finding.form.arm, finding.form.against
                if (one := contrast(finding.scores, arm, other, outcome)) is not None:
                    found.append((finding, one))
    if not found:
        return "None: they belong to confirming runs."
    adjusted = holm([one.p_value for _, one in found])
    rows = [
        [
            regime(finding.scores.settings),
            finding.form.name,
            f"{OUTCOME[one.outcome]}, {UNIT[one.outcome]}",
            improvement(one),
            f"{p:.3f}",
        ]
        for (finding, one), p in zip(found, adjusted, strict=True)
    ]
    return table(["regime", "form", "outcome", "from LoRA", "p (Holm)"], rows)


def _arms_table(scores: CellScores) -> str:
    """Each arm of a cell: its mean score, its difference from the baseline, its learning rate."""
    rows = []
    for arm in scores.arms:
        values = [*scores.values(arm, "score").values()]
        if not values:
            rows.append([arm, "0", "–", "–", "–", "–", "–"])
            continue
        summary, losses = summarize(values), [*scores.values(arm, "loss").values()]
        against = contrast(scores, arm, scores.baseline, "score")
        size, search = scores.adapter_parameters(arm), scores.searches.get(arm)
        rows.append(
            [
                arm,
                str(summary.n),
                format_score(scores.metric, summary.mean, summary.sd),
                format_score("loss", sum(losses) / len(losses)) if losses else "–",
                "–" if against is None or arm == scores.baseline else improvement(against),
                f"{search.lr:g}" + ("" if search.inside else " ≠") if search and search.lr else "–",
                f"{size:,}" if size is not None else "–",
            ]
        )
    title = f"### {scores.cell}: {regime(scores.settings)}"
    if not scores.complete:
        title += "\n\nNot all runs of this cell are finished."
    if on_floor(scores):
        title += "\n\nNo arm is above its floor: this cell does not count."
    head = ["arm", "draws", scores.metric, "loss", "improvement", "learning rate", "parameters"]
    return f"{title}\n\n{table(head, rows)}"


def price_table(stored: Sequence[CellScores]) -> str:
    """What each cell took: hours of one processor core, and hours from its start to its end."""
    rows = []
    for scores in stored:
        trials = sum(len(search.trials) for search in scores.searches.values())
        hours = scores.processor_seconds and f"{scores.processor_seconds / 3600:.2f}"
        rows.append(
            [
                scores.cell,
                f"{trials} + {len(scores.runs)}",
                hours or "not counted",
                f"{scores.wall_seconds / 3600:.2f}",
                scores.machine,
            ]
        )
    counted = [scores.processor_seconds for scores in stored if scores.processor_seconds]
    processor = f"{sum(counted) / 3600:.2f}" + " counted" * (len(counted) < len(stored))
    wall = sum(scores.wall_seconds for scores in stored) / 3600
    rows.append(["all", "", processor, f"{wall:.2f}", ""])
    return table(["cell", "trials + runs", "core-hours", "wall hours", "machine"], rows)


def _lost(stored: Sequence[CellScores]) -> str:
    lost = [f"{s.cell}, {r.arm}, draw {r.seed}: {r.state}" for s in stored for r in s.runs]
    lost = [line for line in lost if not line.endswith(": done")]
    flat: dict[str, int] = {}
    for scores in stored:
        for run in scores.runs:
            if run.one_answer:
                name = f"{scores.cell}, {run.arm}"
                flat[name] = flat.get(name, 0) + 1
    parts = [
        f"Runs without a result: {'; '.join(lost) or 'none'}.",
        "Runs that give every row the same answer: "
        + ("; ".join(f"{name} {number}" for name, number in flat.items()) or "none")
        + ".",
    ]
    marked = any(not search.inside for s in stored for search in s.searches.values())
    if marked:
        parts.append(
            "≠ marks a learning rate whose search is uncertain: the best one may be outside the "
            "grid, or a limit left trials out. The score of such an arm is a lower bound."
        )
    return "\n\n".join(parts)


def _findings(stored: Sequence[CellScores], forms: Sequence[Form], stage: str) -> list[Finding]:
    of_stage = (scores for scores in stored if scores.stage == stage)
    return [finding for scores in of_stage for finding in findings(scores, forms)]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
