"""Sensitivity against autograd on an unfrozen copy in float64, whatever the architecture."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import iwlora
from iwlora.errors import IwloraError
from iwlora.sensitivity.capture import capture
from iwlora.sensitivity.estimators import exact
from iwlora.sensitivity.running_estimate import (
    MIN_BATCHES,
    distance_bound,
    share_deviations,
    share_error,
)
from iwlora.sites import Site, sites
from sensitivity_models import batches, classifier, end_of_sequence, gradients

ARCHITECTURES = ["bert", "roberta", "deberta-v2", "llama", "gpt2", "t5", "bart"]


def oracle(model: nn.Module, data: list[dict[str, torch.Tensor]]) -> dict[str, float]:
    """mean_b ‖∂L_b/∂W‖_F by plain autograd on an unfrozen copy; obviously right, and slow."""
    computed = [gradients(model, batch) for batch in data]
    return {
        name: sum(float(row[name].norm()) for row in computed) / len(computed)
        for name in computed[0]
    }


@pytest.mark.parametrize("estimator", ["exact", "ghost"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equals_autograd_in_float64(architecture: str, estimator: str) -> None:
    model = classifier(architecture)
    data = batches(3, eos=end_of_sequence(model))
    measured = iwlora.measure(model, data, estimator=estimator, tolerance=0)
    expected = oracle(model, data)
    assert measured.values.keys() == expected.keys()
    for name, value in measured.values.items():
        # The Gram form squares first, which costs half the digits of what nearly cancels.
        assert value == pytest.approx(expected[name], rel=1e-10, abs=1e-14), name
    assert max(expected.values()) > 1e-4


def test_the_oracle_would_catch_a_wrong_estimator() -> None:
    model, data = classifier("bert"), batches(2)
    computed, chosen = [], sites(model)
    with capture(chosen, lambda _, x, delta: exact(x[:, :-1], delta[:, :-1])) as captured:
        for batch in data:
            model.eval().requires_grad_(False)(**batch).loss.backward()
            computed.append(captured.take())
    wrong = {name: float(sum(row[name] for row in computed)) / 2 for name in computed[0]}
    assert any(wrong[name] != pytest.approx(v, rel=1e-3) for name, v in oracle(model, data).items())


class Reuse(nn.Module):
    """One linear layer used twice in a forward pass, and one whose output is dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(5, 5), nn.Linear(5, 5)])

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> Any:
        self.blocks[1](x)
        y = self.blocks[0](torch.tanh(self.blocks[0](x)))
        return type("Output", (), {"loss": ((y - labels) ** 2).mean()})


def test_a_reused_layer_has_the_norm_of_the_sum_of_its_uses() -> None:
    model = Reuse().double()
    data = [{"x": torch.randn(4, 5).double(), "labels": torch.randn(4, 5).double()}]
    expected = oracle(model, data)
    assert iwlora.measure(model, data).values == pytest.approx(expected, rel=1e-12)
    assert expected["blocks.1"] == 0.0


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_changes_nothing(reentrant: bool) -> None:
    model: Any = classifier("bert")
    data = batches(2)
    expected = oracle(model, data)
    # transformers renames this during version 5
    name = "activation_checkpointing_enable"
    enable = getattr(model, name, None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": reentrant})
    model.train()  # transformers checkpoints in training mode alone
    chosen, rows = sites(model), []
    for parameter in model.bert.encoder.parameters():
        parameter.requires_grad_(False)  # the embeddings keep the graph alive
    with capture(chosen, lambda _, x, delta: exact(x, delta)) as captured:
        for batch in data:
            model(**batch).loss.backward()
            rows.append(captured.take())
    computed = {name: float(sum(row[name] for row in rows)) / len(rows) for name in rows[0]}
    assert computed == pytest.approx(expected, rel=1e-10)


def test_batches_are_averaged_and_padding_does_not_matter() -> None:
    model = classifier("bert")
    data = batches(2)
    padded = [
        {
            "input_ids": nn.functional.pad(batch["input_ids"], (0, 4)),
            "attention_mask": nn.functional.pad(batch["attention_mask"], (0, 4)),
            "labels": batch["labels"],
        }
        for batch in data
    ]
    one = iwlora.measure(model, data).values
    assert iwlora.measure(model, padded).values == pytest.approx(one, rel=1e-9)
    parts = [iwlora.measure(model, [batch]).values for batch in data]
    assert one == pytest.approx({name: (parts[0][name] + parts[1][name]) / 2 for name in one})


def test_the_model_is_afterwards_as_before() -> None:
    model: Any = classifier("bert").train()
    model.classifier.requires_grad_(False)
    model.bert.pooler.eval()
    flags = [p.requires_grad for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    random = torch.random.get_rng_state()
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}

    def broken(model: nn.Module, batch: Any) -> torch.Tensor:
        raise RuntimeError("stop")

    iwlora.measure(model, batches(2))
    with pytest.raises(RuntimeError, match="stop"):
        iwlora.measure(model, batches(2), loss=broken)
    assert [p.requires_grad for p in model.parameters()] == flags
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), random)
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())


def test_an_adapted_model_is_measured_under_its_own_names() -> None:
    from peft import LoraConfig, get_peft_model

    model = classifier("bert")
    expected = iwlora.measure(model, batches(2)).values
    adapted = get_peft_model(model, LoraConfig(target_modules=["query"], r=2))
    assert iwlora.measure(adapted, batches(2)).values == pytest.approx(expected, rel=1e-10)


def test_stops_when_the_shares_are_stable() -> None:
    model = classifier("bert")
    same = batches(1) * 50
    stopped = iwlora.measure(model, same)
    assert (stopped.batches, stopped.converged) == (MIN_BATCHES, True)
    assert stopped.share_error == pytest.approx(0.0, abs=1e-12)
    going_on = iwlora.measure(model, same, tolerance=0, max_batches=7)
    assert going_on.batches == 7
    one = iwlora.measure(model, batches(1))
    assert (one.share_error, one.converged, set(one.stderr.values())) == (None, False, {None})


def test_share_error_is_the_expected_distance_of_the_shares() -> None:
    generator = np.random.default_rng(0)
    true = np.array([4.0, 2.0, 1.0, 1.0])
    shares = true / true.sum()
    messages, distance = [], []
    bounded = []
    for _ in range(600):
        norms = true * generator.lognormal(0.0, 0.2, size=(16, 4))
        error = share_error(norms)
        assert error is not None
        messages.append(error)
        computed = norms.sum(axis=0) / norms.sum()
        distance.append(0.5 * np.abs(computed - shares).sum())
        deviations = share_deviations(norms)
        assert deviations is not None
        bounded.append(distance[-1] <= distance_bound(deviations, len(norms)))
    assert np.mean(messages) == pytest.approx(np.mean(distance), rel=0.06)
    assert np.mean(bounded) > 0.95


def test_the_rule_is_honest_about_when_it_stops() -> None:
    """Looking after every batch finds lucky moments; they must not make the promise hollow."""
    generator = np.random.default_rng(1)
    true = np.exp(generator.normal(size=36))
    messages, distance, bounded = [], [], []
    for _ in range(150):
        rows = (
            true * generator.lognormal(0, 0.35, (200, 36)) * generator.lognormal(0, 0.5, (200, 1))
        )
        count = next(n for n in range(MIN_BATCHES, 201) if (share_error(rows[:n]) or 1) <= 0.03)
        deviations = share_deviations(rows[:count])
        assert deviations is not None
        computed = rows[:count].sum(axis=0) / rows[:count].sum()
        messages.append(share_error(rows[:count]))
        distance.append(0.5 * np.abs(computed - true / true.sum()).sum())
        bounded.append(distance[-1] <= distance_bound(deviations, count))
    assert np.mean(distance) < 1.15 * np.mean(messages)
    assert np.mean(bounded) > 0.95


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"estimator": "exakt"}, "unknown estimator 'exakt'; did you mean 'exact'"),
        ({"max_batches": 0}, "max_batches=0"),
        ({"tolerance": -0.1}, "tolerance=-0.1"),
        ({"tolerance": math.nan}, "tolerance=nan"),
        ({"sites": []}, r"sites=\[\] was given"),
        ({"sites": ["querry"]}, "unknown target 'querry'; did you mean 'query'"),
        (
            {"loss": lambda model, batch: model(**batch).logits},
            r"returned a \(3, 2\); accepted is a",
        ),
        ({"loss": lambda model, batch: 1.0}, "returned a float; accepted is a tensor"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(IwloraError, match=message):
        iwlora.measure(classifier("bert"), batches(1), **arguments)


def test_bad_data() -> None:
    model = classifier("bert")
    with pytest.raises(IwloraError, match="no calibration batches"):
        iwlora.measure(model, [])
    with pytest.raises(IwloraError, match="batches is a single dict; accepted is an iterable"):
        iwlora.measure(model, batches(1)[0])
    with pytest.raises(IwloraError, match="a batch is a tuple; accepted are mappings"):
        iwlora.measure(model, [tuple(batches(1)[0].values())])
    unlabeled = {k: v for k, v in batches(1)[0].items() if k != "labels"}
    with pytest.raises(IwloraError, match="returned no loss for a batch with the keys input_ids"):
        iwlora.measure(model, [unlabeled])
    with pytest.raises(IwloraError, match="every gradient is zero"):
        iwlora.measure(model, batches(1), loss=lambda model, batch: model(**batch).loss * 0)
    with pytest.raises(IwloraError, match="not finite in calibration batch 0"):
        iwlora.measure(model, batches(1), loss=lambda model, batch: model(**batch).loss * math.inf)


def test_batches_are_what_data_loaders_give() -> None:
    model, data = classifier("bert"), batches(2)
    expected = iwlora.measure(model, data).values
    rows = [{k: v[i] for k, v in batch.items()} for batch in data for i in range(3)]
    loader = torch.utils.data.DataLoader(rows, batch_size=3)  # type: ignore[arg-type]
    assert iwlora.measure(model, loader).values == expected
    with_words = [{**batch, "words": ["a", "b", "c"], "token_type_ids": None} for batch in data]

    def without(model: nn.Module, batch: Any) -> torch.Tensor:
        return model(**{k: v for k, v in batch.items() if k != "words"}).loss  # type: ignore[no-any-return]

    assert iwlora.measure(model, with_words, loss=without).values == expected
    columns = torch.utils.data.TensorDataset(*(torch.cat([b[k] for b in data]) for k in data[0]))
    unnamed = torch.utils.data.DataLoader(columns, batch_size=3)

    def by_place(model: nn.Module, batch: Any) -> torch.Tensor:
        return model(**dict(zip(data[0], batch, strict=True))).loss  # type: ignore[no-any-return]

    for statistic in ("norm", "example"):
        one = iwlora.measure(model, data, statistic=statistic).values
        assert iwlora.measure(model, unnamed, loss=by_place, statistic=statistic).values == one


def test_kinds_and_names_choose_what_is_measured() -> None:
    model, data = classifier("bert"), batches(2)
    every = iwlora.measure(model, data).values
    query = [site for site in sites(model) if site.kind == "query"]
    for chosen in ("query", ["query"], [site.name for site in query], query):
        computed = iwlora.measure(model, data, sites=chosen).values
        assert computed == {site.name: pytest.approx(every[site.name]) for site in query}


def test_it_measures_where_gradients_are_off() -> None:
    model, data = classifier("bert"), batches(2)
    expected = iwlora.measure(model, data).values
    for off in (torch.no_grad, torch.inference_mode):
        with off():
            assert iwlora.measure(model, data).values == expected
            assert not torch.is_grad_enabled()


def test_save_and_load(tmp_path: Path) -> None:
    measured = iwlora.measure(classifier("bert"), batches(3))
    measured.save(tmp_path / "s.json")
    assert iwlora.Sensitivity.load(tmp_path / "s.json") == measured
    text = (tmp_path / "s.json").read_text()
    stored = {name: value for name, value in json.loads(text).items() if name != "digest"}
    for broken in (
        text[: len(text) // 2],
        "[]",
        json.dumps({**stored, "format": "else"}),
        json.dumps({**stored, "sites": []}),
        json.dumps({**stored, "sites": [{"name": "a"}]}),
        json.dumps({**stored, "sites": stored["sites"] * 2}),
        json.dumps({**stored, "sites": [{**site, "value": 0.0} for site in stored["sites"]]}),
        json.dumps({**stored, "statistic": "norms"}),
        json.dumps({**stored, "batches": "3"}),
        json.dumps({**stored, "color": 3}),
        *(
            json.dumps({**stored, "sites": [{**stored["sites"][0], field: value}]})
            for field, value in [("value", -1.0), ("value", math.nan), ("d_in", 0), ("name", 3)]
        ),
    ):
        (tmp_path / "broken.json").write_text(broken)
        with pytest.raises(IwloraError, match="is not a sensitivity file"):
            iwlora.Sensitivity.load(tmp_path / "broken.json")
    with pytest.raises(IwloraError, match="no such file"):
        iwlora.Sensitivity.load(tmp_path / "absent.json")


def test_capture_starts_the_graph_at_the_first_site() -> None:
    """An in-place operation right after the first adapted layer must not fail."""
    first, second = nn.Linear(3, 3), nn.Linear(3, 1)
    for layer in (first, second):
        layer.requires_grad_(False)
    places = [Site("a", first, "a", 3, 3, 0), Site("b", second, "b", 3, 1, 0)]
    with capture(places, lambda _, x, delta: exact(x, delta)) as captured:
        second(torch.relu_(first(torch.ones(2, 3)))).sum().backward()
        assert set(captured.take()) == {"a", "b"}


def test_an_embedding_may_return_a_tuple() -> None:
    """As ProphetNet's positions do."""

    class Positions(nn.Embedding):
        def forward(self, ids: torch.Tensor) -> Any:
            return super().forward(ids), ids

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.positions, self.blocks = Positions(4, 3), nn.ModuleList([nn.Linear(3, 2)])

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.blocks[0](self.positions(ids)[0]).square().sum()

    model, ids = Model(), torch.tensor([[0, 1, 2]])
    measured = iwlora.measure(model, [ids], loss=lambda model, ids: model(ids))
    model(ids).backward()
    assert measured.values["blocks.0"] == pytest.approx(float(model.blocks[0].weight.grad.norm()))
