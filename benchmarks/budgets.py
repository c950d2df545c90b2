"""Which size of each method meets a budget of parameters, on the backbones of the papers.

python benchmarks/budgets.py
python benchmarks/budgets.py --budgets 0.1%,1% --models t5-base

Models are built from their configurations on the meta device: no weights, no network.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    DebertaV2Config,
    RobertaConfig,
    T5Config,
)

from iwlora.compare.statistics.budget_parity import MOST_BUDGET_DIFFERENCE
from iwlora.errors import IwloraError
from iwlora.methods import METHODS, Method
from iwlora.methods.budget import backbone_parameters, fit_to_budget, parse_budget
from iwlora.sites import Site
from iwlora.sites import sites as find_sites

BUDGETS = "0.3M,0.6M,1.33M"
MODELS: dict[str, Callable[[], Any]] = {
    "deberta-v3-base": lambda: DebertaV2Config(
        vocab_size=128100,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        relative_attention=True,
        position_buckets=256,  # type: ignore[call-arg]
        pos_att_type=["p2c", "c2p"],
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        type_vocab_size=0,
        position_biased_input=False,
    ),
    "roberta-large": lambda: RobertaConfig(
        vocab_size=50265,
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=514,
        type_vocab_size=1,
    ),
    "t5-base": lambda: T5Config(
        vocab_size=32128, d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12
    ),
}


def skeleton(name: str) -> Any:
    """A classifier of this shape without weights."""
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(MODELS[name]())


def cells(method: Method, model: Any, sites: list[Site], budgets: Sequence[str]) -> list[str]:
    """For each budget, the size, its adapter parameters, and their deviation if above 5%."""
    try:
        method.check_model(model, sites)
    except IwloraError:
        return ["not supported"] * len(budgets)
    if not method.takes_budget:
        return [f"{method.parameters(model, sites):,}, fixed"] * len(budgets)
    row = []
    for budget in budgets:
        try:
            fitted = fit_to_budget(method, model, sites, budget)
        except IwloraError:
            row.append("no size fits")
        else:
            count = fitted.parameters(model, sites)
            off = count / parse_budget(budget, backbone_parameters(model)) - 1
            deviation = f" ({off:+.0%})" if abs(off) > MOST_BUDGET_DIFFERENCE else ""
            size = f"{method.size_knob} {fitted.size}: " if method.size_knob else ""
            row.append(f"{size}{count:,}{deviation}")
    return row


def table(name: str, budgets: Sequence[str]) -> str:
    """A Markdown table for one model; methods of equal sizes and counts share a row."""
    model = skeleton(name)
    sites = find_sites(model)
    rows: dict[tuple[str, ...], list[str]] = {}
    for label, method in METHODS.items():
        rows.setdefault(tuple(cells(method(), model, sites, budgets)), []).append(label)
    lines = [
        f"{name}: {backbone_parameters(model):,} parameters, {len(sites)} matrices",
        "",
        f"| method | {' | '.join(budgets)} |",
        "|---" * (1 + len(budgets)) + "|",
    ]
    lines += [f"| {', '.join(labels)} | {' | '.join(row)} |" for row, labels in rows.items()]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budgets", default=BUDGETS, help=f"default {BUDGETS}; also 0.5%%")
    parser.add_argument("--models", default=",".join(MODELS), help=f"of {', '.join(MODELS)}")
    given = parser.parse_args(arguments)
    print("\n\n".join(table(name, given.budgets.split(",")) for name in given.models.split(",")))


if __name__ == "__main__":
    main()
