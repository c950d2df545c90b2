"""The checks that every method must pass; a failing check raises ``AssertionError``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from statistics import mode

import torch
from torch import Tensor

from iwlora.errors import IwloraError
from iwlora.head import head_modules, in_modules
from iwlora.inputs.tensors import load_tensors
from iwlora.methods.budget import count_parameters, fit_to_budget
from iwlora.methods.contract import Attached
from iwlora.methods.loading import merge_adapter
from iwlora.results import layout
from iwlora.sites import sites as find_sites
from iwlora.testing.case import SIZE, STEPS, Case, snapshot, train_in_two_processes

Check = Callable[[Case], None]


def initial_output(case: Case) -> None:
    """Before training, the output equals the frozen model's bit for bit, if that is declared."""
    same = torch.equal(case.trained.initial_logits, case.trained.frozen_logits)
    declared = case.method.identity_at_init
    _expect(same == declared, f"identity_at_init={declared}, but the outputs are equal: {same}")


def training_changes_the_output(case: Case) -> None:
    """A few training steps change the logits."""
    change = (case.trained.logits - case.trained.initial_logits).abs().max().item()
    _expect(change > 1e-3, f"the logits changed by {change}")


def trainable_parameters_are_declared(case: Case) -> None:
    """The parameters with ``requires_grad`` are those of ``adapter`` and ``head``, and counted."""
    attached = case.trained.attached
    try:
        counted = count_parameters(attached)
    except IwloraError as error:
        raise AssertionError(str(error)) from None
    training = sum(p.numel() for p in attached.model.parameters() if p.requires_grad)
    _expect(counted["trainable_parameters"] == training, f"{counted}, but {training} train")
    shared = set(attached.adapter) & set(attached.head)
    _expect(not shared, f"in adapter and in head: {sorted(shared)[:1]}")
    _expect(bool(attached.head), "the task head does not train")


def only_declared_parameters_change(case: Case) -> None:
    """Training changes all of the head, most of the adapter, and nothing else."""
    check_changes(case.trained.attached, case.trained.initial, adapter_share=0.5)


def check_changes(
    attached: Attached,
    initial: Mapping[str, Tensor],
    adapter_share: float = 1.0,
    without_gradient: Collection[str] = (),
) -> None:
    """Raise ``AssertionError`` unless training changed the declared parameters and nothing else.

    Args:
        attached: the method on a model that was trained.
        initial: the parameters and buffers of the model before training.
        adapter_share: the part of the adapter's parameters that must have changed; of the head's
            all must have.
        without_gradient: adapter parameters that need not have changed.
    """
    after = snapshot(attached.model)
    _expect(after.keys() == initial.keys(), "training added or removed tensors")
    changed = _different(after, initial)
    declared = {id(attached.model.get_parameter(name)) for name in attached.trainable}
    named = attached.model.named_parameters(remove_duplicate=False)  # all names of tied parameters
    undeclared = changed - {name for name, parameter in named if id(parameter) in declared}
    example = min(undeclared, default="")
    _expect(not undeclared, f"{len(undeclared)} undeclared tensors changed, such as {example}")
    unchanged = sorted(set(attached.head) - changed)
    _expect(not unchanged, f"parts of the head did not change: {unchanged[:3]}")
    adapter = set(attached.adapter) - set(without_gradient)
    part, total = len(changed & adapter), len(adapter)
    example = min(adapter - changed, default="")
    _expect(
        part >= adapter_share * total,
        f"only {part} of {total} adapter parameters changed, not {example}",
    )


def loading_gives_the_same_logits(case: Case) -> None:
    """The saved result gives the same logits on a fresh backbone, and no file is a pickle."""
    trained = case.trained
    endings = {path.suffix for path in trained.saved.rglob("*") if path.is_file()}
    accepted = {".safetensors", ".json", ".md", ".txt"}
    _expect(endings <= accepted, f"files with {sorted(endings)} were saved")
    _same(case.logits(case.reload(trained.saved)), trained.logits, "after loading", 1e-5)


def merging_gives_a_plain_model(case: Case) -> None:
    """A merged model has the backbone's tensors only, and gives the same logits."""
    if case.method.unmergeable:
        return
    model = merge_adapter(case.reload(case.trained.saved))
    plain = case.model().state_dict().keys()
    _expect(model.state_dict().keys() == plain, "the merged model is not a plain model")
    _same(case.logits(model), case.trained.logits, "after merging", 1e-4)


def the_count_is_what_was_saved(case: Case) -> None:
    """``count()`` is the number of saved adapter parameters, and close to ``parameters()``."""
    attached = case.trained.attached
    counted, saved = attached.count(), _saved_parameters(case) - attached.derived
    _expect(counted == saved, f"count() is {counted}, but {saved} were saved")
    model = case.model()
    predicted = case.method.parameters(model, find_sites(model))
    _expect(abs(predicted - counted) <= 0.1 * counted, f"{predicted} predicted, {counted} counted")


def predicted_parameters_are_exact(case: Case) -> None:
    """``parameters()`` equals ``count()``; with ranks that differ, on sites of one shape."""
    model = case.model()
    attached, sites = case.trained.attached, find_sites(model)
    if attached.ranks is not None:
        shapes = [(site.d_in, site.d_out) for site in sites]
        sites = [site for site, shape in zip(sites, shapes, strict=True) if shape == mode(shapes)]
    predicted = case.method.parameters(model, sites)
    if attached.ranks is not None:
        attached = case.attach(model, sites)
        case.fit(attached, case.folder / "one-shape")
    _expect(attached.count() == predicted, f"{predicted} predicted, {attached.count()} counted")


def sizes_fit_budgets(case: Case) -> None:
    """The number of parameters grows with the size, and a budget gives the size back."""
    method = case.method
    if method.size_knob is None:
        return
    model = case.model()
    sites = find_sites(model)
    counts = [method.sized(size).parameters(model, sites) for size in range(1, 2 * SIZE)]
    _expect(all(a < b for a, b in pairwise(counts)), f"sizes 1, 2, ... have {counts} parameters")
    size = type(method)(**{method.size_knob: SIZE}).size
    _expect(size == SIZE, f"{method.size_knob}={SIZE} gives the size {size}")
    fitted = fit_to_budget(method.sized(1), model, sites, counts[SIZE - 1]).size
    _expect(fitted == SIZE, f"a budget of {counts[SIZE - 1]} gives the size {fitted}")


def attaching_depends_on_the_seed_only(case: Case) -> None:
    """``attach`` does not use or change the global random state."""
    states = []
    for global_seed in (10, 11):
        model = case.model()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(global_seed)
            expected = torch.random.get_rng_state()
            attached = case.attach(model)
            same = torch.equal(torch.random.get_rng_state(), expected)
            _expect(same, "the global random state changed")
        states.append(snapshot(attached.model))
    different = _different(*states)
    _expect(not different, f"{sorted(different)[:1]} depends on more than the seed")


def resumed_equals_uninterrupted(case: Case) -> None:
    """Training that resumes from the checkpoint ends with the same parameters, bit for bit."""
    expected, attached = snapshot(case.trained.attached.model), case.attach()
    checkpoint = layout.checkpoint_folder(case.folder / "trained", STEPS // 2)
    case.fit(attached, case.folder / "trained", resume=str(checkpoint))
    different = _different(snapshot(attached.model), expected) & set(attached.trainable)
    examples = sorted(different)[:1]
    _expect(not different, f"{len(different)} parameters differ after a resume, such as {examples}")
    _same(case.logits(attached.model), case.trained.logits, "after a resume", 0.0)


def accumulation_changes_nothing(case: Case) -> None:
    """Gradient accumulation gives the same logits except for rounding."""
    _same(case.accumulated.logits, case.trained.logits, "with gradient accumulation", 1e-3)


def callbacks_are_called_once_per_step(case: Case) -> None:
    """``on_optimizer_step`` is called once per optimizer step, not once per micro-batch."""
    accumulated = case.accumulated
    optimizer_steps = accumulated.optimizer_steps
    _expect(optimizer_steps == STEPS, f"{optimizer_steps} optimizer steps, not {STEPS}")
    for steps in accumulated.callback_steps:
        _expect(steps == list(range(STEPS)), f"a callback was called at the steps {steps}")


def two_processes_equal_one(case: Case) -> None:
    """Data-parallel training in two processes gives the logits of one process, in both."""
    if not all(file.is_file() for file in case.two_process_logits):
        train_in_two_processes([case])
    first, second = (load_tensors(file)["logits"] for file in case.two_process_logits)
    _expect(torch.equal(first, second), "the two processes end with different logits")
    _same(first, case.trained.logits, "in two processes", 2e-3)


def _saved_parameters(case: Case) -> int:
    """The number of saved parameters without the task head."""
    heads = head_modules(case.model())
    tensors = [
        (name.removeprefix("base_model.").removeprefix("model."), tensor)
        for file in sorted(case.trained.saved.rglob("*.safetensors"))
        for name, tensor in load_tensors(file).items()
    ]
    return sum(tensor.numel() for name, tensor in tensors if not in_modules(name, heads))


def _different(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> set[str]:
    """The names of the tensors that are not equal."""
    return {name for name in first if not torch.equal(first[name], second[name])}


def _same(logits: Tensor, expected: Tensor, when: str, tolerance: float) -> None:
    difference = (logits - expected).abs().max().item()
    _expect(difference <= tolerance, f"the logits differ by {difference} {when}")


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


CHECKS: tuple[Check, ...] = (
    initial_output,
    training_changes_the_output,
    trainable_parameters_are_declared,
    only_declared_parameters_change,
    loading_gives_the_same_logits,
    merging_gives_a_plain_model,
    the_count_is_what_was_saved,
    predicted_parameters_are_exact,
    sizes_fit_budgets,
    attaching_depends_on_the_seed_only,
    resumed_equals_uninterrupted,
    accumulation_changes_nothing,
    callbacks_are_called_once_per_step,
)
COSTLY: tuple[Check, ...] = (two_processes_equal_one,)
