"""What every method owes, whatever the architecture: each check raises ``AssertionError``."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from safetensors.torch import load_file

from iwlora.errors import IwloraError
from iwlora.methods.adapter_files import merged
from iwlora.methods.budget import count, solve
from iwlora.methods.tiny_models import tiny_model
from iwlora.results import layout
from iwlora.sites import head_modules, sites
from iwlora.testing.case import SIZE, STEPS, Case, snapshot
from iwlora.testing.processes import in_two_processes

Check = Callable[[Case], None]


def output_at_first(case: Case) -> None:
    """The output at first is the frozen model's, bit for bit, exactly where that is declared."""
    same = torch.equal(case.trained.initial_logits, case.trained.frozen_logits)
    declared = case.method.identity_at_init
    _expect(same == declared, f"identity_at_init={declared}, but the output is same={same}")


def training_changes_the_output(case: Case) -> None:
    """A few steps move the logits."""
    change = (case.trained.logits - case.trained.initial_logits).abs().max().item()
    _expect(change > 1e-3, f"the logits moved by {change}")


def what_trains_is_declared(case: Case) -> None:
    """The parameters with ``requires_grad`` are the adapter's and the head's, and counted."""
    attached = case.trained.attached
    try:
        counted = count(attached)
    except IwloraError as error:
        raise AssertionError(str(error)) from None
    training = sum(p.numel() for p in attached.model.parameters() if p.requires_grad)
    _expect(counted["trainable_parameters"] == training, f"{counted}, but {training} train")
    _expect(set(attached.adapter).isdisjoint(attached.head), "a parameter is adapter and head")
    _expect(bool(attached.head), "the task head does not train")


def only_declared_parameters_move(case: Case) -> None:
    """Frozen bytes, buffers too, stay the same; the head moves, and most of the adapter."""
    trained = case.trained
    attached, after = trained.attached, snapshot(trained.attached.model)
    _expect(after.keys() == trained.initial.keys(), "training added or removed tensors")
    moved = {name for name in after if not torch.equal(after[name], trained.initial[name])}
    declared = {id(attached.model.get_parameter(name)) for name in attached.trainable}
    named = attached.model.named_parameters(remove_duplicate=False)  # tied ones by all names
    strays = moved - {name for name, parameter in named if id(parameter) in declared}
    _expect(
        not strays, f"{len(strays)} tensors moved undeclared, such as {min(strays, default='')}"
    )
    still = set(attached.head) - moved
    _expect(not still, f"parts of the head did not move: {sorted(still)[:3]}")
    part = len(moved & set(attached.adapter))
    _expect(2 * part >= len(attached.adapter), f"{part} of {len(attached.adapter)} adapters moved")


def loading_gives_the_same_logits(case: Case) -> None:
    """What was saved computes the same on a fresh backbone, and nothing was pickled."""
    trained = case.trained
    endings = {path.suffix for path in trained.saved.rglob("*") if path.is_file()}
    _expect(endings <= {".safetensors", ".json", ".md", ".txt"}, f"saved are {sorted(endings)}")
    _same(case.logits(case.reload(trained.saved)), trained.logits, "after loading", 1e-5)


def merging_gives_a_plain_model(case: Case) -> None:
    """Where merging is possible, it leaves the backbone's own tensors and the same logits."""
    if case.method.unmergeable:
        return
    model = merged(case.reload(case.trained.saved))
    plain = tiny_model(case.architecture).state_dict().keys()
    _expect(model.state_dict().keys() == plain, "the merged model is no plain model")
    _same(case.logits(model), case.trained.logits, "after merging", 1e-4)


def the_count_is_what_was_saved(case: Case) -> None:
    """``count()`` is the number of saved adapter parameters, and near what was foretold."""
    attached = case.trained.attached
    counted, saved = attached.count(), _saved(case) - attached.derived
    _expect(counted == saved, f"count() is {counted}, but {saved} were saved")
    model = tiny_model(case.architecture)
    foretold = case.method.parameters(model, sites(model), case.size)
    _expect(abs(foretold - counted) <= 0.1 * counted, f"{foretold} were foretold, not {counted}")


def parameters_are_foretold(case: Case) -> None:
    """``parameters()`` is exact; where sites end with different ranks, if all have one shape."""
    model = tiny_model(case.architecture)
    attached, places = case.trained.attached, sites(model)
    if attached.ranks is not None:
        places = [site for site in places if site.d_in == site.d_out]
    foretold = case.method.parameters(model, places, case.size)
    if attached.ranks is not None:
        attached = case.attach(model, places)
        case.fit(attached, case.folder / "square")
    _expect(attached.count() == foretold, f"{foretold} were foretold, not {attached.count()}")


def the_size_lands_on_budget(case: Case) -> None:
    """Parameters grow with the size, the option sets it, and a budget finds it again."""
    method = case.method
    if method.size_knob is None:
        return
    model = tiny_model(case.architecture)
    places = sites(model)
    counts = [method.parameters(model, places, size) for size in range(1, 2 * SIZE)]
    _expect(all(a < b for a, b in pairwise(counts)), f"sizes 1, 2, … have {counts} parameters")
    by_option = method.model_copy(update={method.size_knob: SIZE})
    _expect(by_option.size == SIZE, f"{method.size_knob}={SIZE} gives the size {by_option.size}")
    found = by_option.parameters(model, places, None)
    _expect(found == counts[SIZE - 1], f"{found} by option, {counts[SIZE - 1]} by size")
    solved = solve(method, model, places, counts[SIZE - 1])
    _expect(solved == SIZE, f"a budget of {counts[SIZE - 1]} gives the size {solved}")


def attaching_depends_on_the_seed_alone(case: Case) -> None:
    """Global random state neither changes nor matters."""
    found = []
    for before in (10, 11):
        model = tiny_model(case.architecture)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(before)
            expected = torch.random.get_rng_state()
            attached = case.attach(model)
            _expect(torch.equal(torch.random.get_rng_state(), expected), "random state was touched")
        found.append(snapshot(attached.model))
    first, again = found
    differ = [name for name in first if not torch.equal(first[name], again[name])]
    _expect(not differ, f"{differ[:1]} depends on more than the seed")


def resumed_equals_uninterrupted(case: Case) -> None:
    """From the checkpoint half way, training ends with the same bytes."""
    expected = case.trained.attached
    attached = case.attach()
    checkpoint = layout.checkpoint_folder(case.folder / "whole", STEPS // 2)
    case.fit(attached, case.folder / "whole", resume=str(checkpoint))
    differ = [
        name
        for name in attached.trainable
        if not torch.equal(attached.model.get_parameter(name), expected.model.get_parameter(name))
    ]
    _expect(not differ, f"{len(differ)} parameters differ after a resume, such as {differ[:1]}")
    _same(case.logits(attached.model), case.trained.logits, "after a resume", 0.0)


def pieces_take_the_path_of_the_batch(case: Case) -> None:
    """Gradient accumulation changes nothing but rounding."""
    _same(case.accumulated.logits, case.trained.logits, "in pieces", 1e-3)


def callbacks_fire_once_a_step(case: Case) -> None:
    """``on_optimizer_step`` is called once for each step of the optimizer, not for each piece."""
    ran = case.accumulated
    _expect(ran.optimizer_steps == STEPS, f"{ran.optimizer_steps} optimizer steps, not {STEPS}")
    for steps in ran.callback_steps:
        _expect(steps == tuple(range(STEPS)), f"a callback was called at {steps}")


def two_processes_take_the_path_of_one(case: Case) -> None:
    """Data-parallel training on gloo gives what one process gives, in both processes."""
    if not case.two.is_file():
        in_two_processes([case])
    first, second = load_file(case.two).values()
    _expect(torch.equal(first, second), "the two processes end with different logits")
    _same(first, case.trained.logits, "in two processes", 2e-3)


def _saved(case: Case) -> int:
    """Numbers in the saved file that are not the task head's."""
    heads = head_modules(tiny_model(case.architecture))
    tensors = [
        (name.removeprefix("base_model.").removeprefix("model."), tensor)
        for file in sorted(case.trained.saved.rglob("*.safetensors"))
        for name, tensor in load_file(file).items()
    ]
    return sum(tensor.numel() for name, tensor in tensors if name.split(".")[0] not in heads)


def _same(found: torch.Tensor, expected: torch.Tensor, when: str, tolerance: float) -> None:
    difference = (found - expected).abs().max().item()
    _expect(difference <= tolerance, f"the logits differ by {difference} {when}")


def _expect(condition: bool, told: str) -> None:
    if not condition:
        raise AssertionError(told)


CHECKS: tuple[Check, ...] = (
    output_at_first,
    training_changes_the_output,
    what_trains_is_declared,
    only_declared_parameters_move,
    loading_gives_the_same_logits,
    merging_gives_a_plain_model,
    the_count_is_what_was_saved,
    parameters_are_foretold,
    the_size_lands_on_budget,
    attaching_depends_on_the_seed_alone,
    resumed_equals_uninterrupted,
    pieces_take_the_path_of_the_batch,
    callbacks_fire_once_a_step,
)
COSTLY: tuple[Check, ...] = (two_processes_take_the_path_of_one,)
