"""The arithmetic of the benchmarks that measure time and memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from iwlora.sites import sites


def test_a_stopwatch_gives_each_moment_to_the_innermost_part(
    script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = script("step_profile")
    now = 0.0

    def pass_time(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: now)
    watch = benchmark.Stopwatch()
    inner = watch.around("penalty", lambda: pass_time(2))

    def forward() -> str:
        pass_time(1)
        inner()
        pass_time(4)
        return "loss"

    pass_time(8)
    watch.restart()
    assert watch.around("forward", forward)() == "loss"
    pass_time(16)
    with pytest.raises(ZeroDivisionError):
        watch.around("backward", lambda: pass_time(1 / 0))()
    watch.lap()
    assert watch.seconds == {"forward": 5, "penalty": 2, benchmark.REST: 16, "backward": 0}


def test_the_rate_of_matrix_products_counts_every_site(
    script: Any, needs_minilm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """36 sites of 6 blocks of MiniLM, on a clock that ticks once a reading."""
    benchmark = script("step_profile")
    ticks = iter(range(1000))
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: next(ticks))
    block = 4 * 384 * 384 + 2 * 384 * 1536
    assert benchmark.matrix_rate(torch.float32, tokens=2, rounds=1) == 2 * 2 * 6 * block / 36


def test_exponents_are_those_of_known_laws(script: Any) -> None:
    scaling = script("scaling")
    assert scaling.exponent([1, 2, 4, 8], [5, 20, 80, 320]) == (2.0, 0.0)
    slope, error = scaling.exponent([1, 2, 4], [1.0, 2.5, 3.6])
    assert 0.8 < slope < 1.0
    assert error > 0.1


def test_a_scaled_step_is_of_the_size_that_is_asked(script: Any) -> None:
    """FLOPs of the same step follow the batch; a deeper model has all its sites adapted."""
    scaling = script("scaling")
    assert scaling.sized("depth", 2) == scaling.Point(depth=2, sites=12)
    small = scaling.Point(width=32, depth=1, length=8, rank=2, batch=2, sites=3)
    double = scaling.Point(width=32, depth=1, length=8, rank=2, batch=4, sites=3)
    costs = scaling.measured([small, double], rounds=1)
    assert costs["GFLOP"][1] == pytest.approx(2 * costs["GFLOP"][0])
    assert costs["MiB of tensors"][1] > costs["MiB of tensors"][0]
    assert min(costs["processor s"]) > 0


def test_no_site_is_left_out_of_the_profile(script: Any) -> None:
    """The plain script adapts what iwlora calls the sites of a BERT."""
    from peft import LoraConfig, get_peft_model

    from iwlora.methods.tiny_models import tiny_model

    model = tiny_model("bert")
    names = [site.name for site in sites(model)]
    adapted = get_peft_model(model, LoraConfig(target_modules=script("plain_peft").LINEAR))
    layers = [
        name
        for name, module in adapted.base_model.model.named_modules()
        if type(module).__module__.startswith("peft.tuners.lora")
    ]
    assert sorted(layers) == sorted(names)


def test_every_variant_changes_something(script: Any) -> None:
    """Each variant is a valid recipe, and what it replaces exists and has another value."""
    ablation = script("speed_ablation")
    options = ablation.argparse.Namespace(glue="none", rows=320)
    usual = ablation.recipe(options).train
    for name, (settings, replaced) in ablation.VARIANTS.items():
        changed = ablation.recipe(options, **settings).train != usual
        changed |= any(getattr(owner, attribute) != value for owner, attribute, value in replaced)
        assert changed == (name != "all on"), name


def test_scoring_in_the_order_of_the_rows_is_that(script: Any) -> None:
    assert list(script("speed_ablation")._RowOrderSampler([3, 9, 5])) == [0, 1, 2]
