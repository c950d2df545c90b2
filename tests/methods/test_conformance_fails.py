"""The conformance suite sees a method that breaks its contract, each break by its own check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from iwlora.methods import METHODS, Attached, Method
from iwlora.methods.additive.bottleneck_adapters import Parallel
from iwlora.methods.selective.bitfit import BitFit
from iwlora.testing import (
    CHECKS,
    COSTLY,
    Case,
    Check,
    cases,
    checks,
    frozen_blocks_once_equal_plain,
    packed_equals_alone,
)


class Broken(Parallel):
    """The parallel adapter; what a subclass breaks is done to what it attached."""

    def attach(self, *args: Any, **kwargs: Any) -> Attached:
        return self.broken(super().attach(*args, **kwargs))

    def broken(self, attached: Attached) -> Attached:
        raise NotImplementedError


class NotIdentity(Broken):
    def broken(self, attached: Attached) -> Attached:
        with torch.no_grad():
            attached.model.get_parameter(attached.adapter[3]).add_(0.1)
        return attached


class TrainsNothing(Broken):
    def broken(self, attached: Attached) -> Attached:
        class Undo(TrainerCallback):
            def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
                self.before = {k: v.clone() for k, v in attached.model.state_dict().items()}

            def on_train_end(self, *args: Any, **kwargs: Any) -> None:
                attached.model.load_state_dict(self.before)

        return replace(attached, callbacks=(Undo(),))


class Undeclared(Broken):
    def broken(self, attached: Attached) -> Attached:
        return replace(attached, adapter=attached.adapter[1:])


class DeclaresWhatIsFrozen(Broken):
    def broken(self, attached: Attached) -> Attached:
        return replace(attached, adapter=(*attached.adapter, "bert.pooler.dense.weight"))


class MovesTheFrozen(Broken):
    def broken(self, attached: Attached) -> Attached:
        class Nudge(TrainerCallback):
            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                attached.model.bert.pooler.dense.weight.data.mul_(0.999)

        return replace(attached, callbacks=(Nudge(),))


class SavesSomethingElse(Broken):
    def broken(self, attached: Attached) -> Attached:
        def save(folder: Path) -> None:
            attached.save(folder)
            file = folder / "adapter" / "adapter.safetensors"
            save_file({name: 1.1 * tensor for name, tensor in load_file(file).items()}, file)

        return replace(attached, save=save)


class ChangesTheModelToSaveIt(Broken):
    def broken(self, attached: Attached) -> Attached:
        def save(folder: Path) -> None:
            attached.model.get_parameter(attached.adapter[2]).data.mul_(1.1)
            attached.save(folder)

        return replace(attached, save=save)


class Pickles(Broken):
    def broken(self, attached: Attached) -> Attached:
        def save(folder: Path) -> None:
            attached.save(folder)
            torch.save({}, folder / "adapter" / "more.bin")

        return replace(attached, save=save)


class SaysItMerges(Parallel):
    unmergeable: ClassVar[str | None] = None


class Miscounts(Broken):
    def broken(self, attached: Attached) -> Attached:
        return replace(attached, count=lambda: attached.count() + 1)


class ForetellsTooFew(Parallel):
    def parameters(self, *args: Any, **kwargs: Any) -> int:
        return super().parameters(*args, **kwargs) - 1


class DoesNotGrow(Parallel):
    def parameters(self, model: Any, sites: Any) -> int:
        return Parallel(bottleneck=4).parameters(model, sites)


class TouchesRandomState(Broken):
    def broken(self, attached: Attached) -> Attached:
        torch.rand(1)
        return attached


class DependsOnRandomState(Broken):
    def broken(self, attached: Attached) -> Attached:
        with torch.random.fork_rng(devices=[]):
            attached.model.get_parameter(attached.adapter[0]).data.normal_()
        return attached


class ForgetsItsState(Broken):
    """Its callback counts, and what it does depends on the count, which no checkpoint has."""

    def broken(self, attached: Attached) -> Attached:
        class Shrink(TrainerCallback):
            steps = 0

            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                self.steps += 1
                if self.steps > 3:
                    attached.model.get_parameter(attached.adapter[2]).data.mul_(0.9)

        return replace(attached, callbacks=(Shrink(),))


class ActsOnEveryPiece(Broken):
    def broken(self, attached: Attached) -> Attached:
        class Shrink(TrainerCallback):
            def on_substep_end(self, *args: Any, **kwargs: Any) -> None:
                attached.model.get_parameter(attached.head[0]).data.mul_(0.9)

        return replace(attached, callbacks=(Shrink(),))


class FiresOnEveryPiece(Broken):
    def broken(self, attached: Attached) -> Attached:
        class Eager(TrainerCallback):
            def on_substep_end(self, *args: Any, **kwargs: Any) -> None:
                self.on_optimizer_step(*args, **kwargs)

            def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
                """Count, say."""

        return replace(attached, callbacks=(Eager(),))


class SaysItPacks(Broken):
    not_packable: ClassVar[str | None] = None

    def broken(self, attached: Attached) -> Attached:
        return attached


class TrainsBelowItsSites(Broken):
    def broken(self, attached: Attached) -> Attached:
        name = "bert.embeddings.LayerNorm.weight"
        attached.model.get_parameter(name).requires_grad_(True)
        return replace(attached, adapter=(*attached.adapter, name))


class MovesTheEmbeddings(Broken):
    """Its callback changes what is below the stored activations."""

    def broken(self, attached: Attached) -> Attached:
        class Nudge(TrainerCallback):
            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                attached.model.bert.embeddings.LayerNorm.bias.data[0] += 1.0

        return replace(attached, callbacks=(Nudge(),))


SEEN_BY: dict[type[Parallel], tuple[Check, str]] = {
    NotIdentity: (checks.initial_output, "identity_at_init=True"),
    TrainsNothing: (checks.training_changes_the_output, "changed by 0"),
    Undeclared: (
        checks.trainable_parameters_are_declared,
        "not those that the method declares; 1 differ",
    ),
    DeclaresWhatIsFrozen: (checks.trainable_parameters_are_declared, "bert.pooler.dense.weight"),
    MovesTheFrozen: (checks.only_declared_parameters_change, "1 undeclared tensors changed"),
    SavesSomethingElse: (checks.loading_gives_the_same_logits, "after loading"),
    ChangesTheModelToSaveIt: (checks.loading_gives_the_same_logits, "after loading"),
    Pickles: (checks.loading_gives_the_same_logits, "'.bin'"),
    SaysItMerges: (checks.merging_gives_a_plain_model, "not a plain model"),
    Miscounts: (checks.the_count_is_what_was_saved, "were saved"),
    ForetellsTooFew: (checks.predicted_parameters_are_exact, "predicted, "),
    DoesNotGrow: (checks.sizes_fit_budgets, "have"),
    TouchesRandomState: (checks.attaching_depends_on_the_seed_only, "random state changed"),
    DependsOnRandomState: (checks.attaching_depends_on_the_seed_only, "more than the seed"),
    ForgetsItsState: (checks.resumed_equals_uninterrupted, "after a resume"),
    ActsOnEveryPiece: (checks.accumulation_changes_nothing, "with gradient accumulation"),
    FiresOnEveryPiece: (checks.callbacks_are_called_once_per_step, "was called at"),
    TrainsBelowItsSites: (
        frozen_blocks_once_equal_plain,
        "0 blocks are frozen, and by its names 1",
    ),
    MovesTheEmbeddings: (frozen_blocks_once_equal_plain, "with frozen blocks skipped"),
    SaysItPacks: (packed_equals_alone, "0 joint passes"),
}


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[[type[Method]], None]:
    """Puts a method in the place of the row of its name, which is loaded from what it saved."""
    return lambda method: monkeypatch.setitem(METHODS, method.name, method)


@pytest.mark.parametrize("broken", SEEN_BY, ids=lambda method: method.__name__)
def test_a_broken_method_is_seen(
    broken: type[Parallel], register: Callable[[type[Method]], None], tmp_path: Path
) -> None:
    register(broken)
    check, messages = SEEN_BY[broken]
    with pytest.raises(AssertionError, match=messages):
        check(Case(broken(), "bert", tmp_path))


def test_two_processes_that_differ_are_seen(tmp_path: Path) -> None:
    case = Case(Parallel(), "bert", tmp_path)
    logits = case.trained.logits
    for outputs in ((logits, logits + 0.01), (logits + 0.01, logits + 0.01)):
        for output, file in zip(outputs, case.two_process_logits, strict=True):
            save_file({"logits": output.clone()}, file)
        with pytest.raises(AssertionError, match=r"different logits|in two processes"):
            checks.two_processes_equal_one(case)


def test_every_check_has_a_method_that_fails_it() -> None:
    seen = {check for check, _ in SEEN_BY.values()} | {checks.two_processes_equal_one}
    assert seen == {*CHECKS, *COSTLY, frozen_blocks_once_equal_plain, packed_equals_alone}


def test_a_method_owes_nothing_where_it_refuses_to_go() -> None:
    taken = ["bert", "roberta", "electra", "deberta-v2", "bart", "gpt2"]
    every = [(architecture, check) for architecture in taken for check in CHECKS]
    costly_checks = [*COSTLY, frozen_blocks_once_equal_plain, packed_equals_alone]
    assert cases(BitFit()) == every + [("bert", check) for check in costly_checks]
    costly = [(architecture, check) for architecture in taken for check in costly_checks]
    assert cases(BitFit(), everywhere=True) == every + costly
    assert packed_equals_alone not in [check for _, check in cases(Parallel())]
