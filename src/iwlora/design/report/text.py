"""What a search decided, for a terminal."""

from __future__ import annotations

from iwlora.compare.report.text_columns import align
from iwlora.design.report.tables import (
    choice_table,
    columns,
    cost_sentence,
    found_texts,
    open_sentence,
    proxy_table,
    score_sentence,
    stage_table,
)
from iwlora.results.comparison.designs import DesignSummary

_PROXIES = "numbers that are known before training, and their rank correlation with the scores:"


def summary_text(summary: DesignSummary) -> str:
    """The stages with their choices, the found design and the cost."""
    lines = [*align(columns(stage_table(summary)))]
    lines += ["", text] if (text := score_sentence(summary)) else []
    for stage in summary.stages:
        lines += ["", f"{stage.name}: {stage.found}"]
        lines += align(columns(choice_table(stage, summary.metric or ""))) if stage.choices else []
        lines += [f"{label} was left out: {why}" for label, why in stage.impossible.items()]
    if summary.proxies:
        lines += ["", _PROXIES]
        lines += align(columns(proxy_table(summary)))
    if summary.found is not None:
        found = ", ".join(f"{key} {text}" for key, text in found_texts(summary).items())
        lines += ["", f"found: {found}, learning rate {summary.lr:g}"]
        lines += [text] if (text := open_sentence(summary)) else []
    return "\n".join([*lines, "", cost_sentence(summary)])
