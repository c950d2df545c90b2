"""Each check of the families sees a planted wrong result."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import architectures
import iwlora
from families import outcomes
from families.checkpoints import save_checkpoint
from families.journey import Journey, Trained, check_training
from families.outcomes import LeftOut, Outcome, run_family
from iwlora.training.sharing import export as exporting
from iwlora.training.state import artifacts


@pytest.fixture(scope="module")
def trip(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    folder = tmp_path_factory.mktemp("journey")
    checkpoint = save_checkpoint(folder / "checkpoint", "distilbert", "classification")
    return Journey(checkpoint, "classification", folder)


@pytest.fixture(scope="module")
def trained(trip: Journey) -> Trained:
    return trip.train("iw-lora")


def test_an_unchanged_family_passes(trip: Journey, trained: Trained) -> None:
    trip.measure()
    for check in trip.checks:
        check(trained)


@pytest.mark.parametrize("factor", [0.0, 0.99, float("nan")])
def test_a_wrong_sensitivity_is_seen(
    factor: float, trip: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*arguments: Any, **options: Any) -> Any:
        measured = true_measure(*arguments, **options)
        first = replace(measured.sites[0], value=factor * measured.sites[0].value)
        return replace(measured, sites=(first, *measured.sites[1:]))

    true_measure = iwlora.measure
    monkeypatch.setattr(iwlora, "measure", measure, raising=False)
    with pytest.raises(AssertionError, match="the sensitivity of"):
        trip.measure()


def test_a_sensitivity_of_zero_is_seen(trained: Trained) -> None:
    file = trained.folder / "sensitivity.json"
    text = file.read_text(encoding="utf-8")
    measured = iwlora.Sensitivity.load(file)
    try:
        zero = replace(measured.sites[0], value=0.0)
        replace(measured, sites=(zero, *measured.sites[1:])).save(file)
        with pytest.raises(AssertionError, match="1 of 12 sensitivities are 0"):
            check_training(trained)
    finally:
        file.write_text(text, encoding="utf-8")


PLANTED: dict[str, tuple[Callable[[Any], None], str]] = {
    "nothing moved": (lambda model: None, "no note says: 12 of 12 matrices had no gradient"),
    "a frozen weight moved": (
        lambda model: model.get_input_embeddings().weight.data.mul_(1.01),
        "undeclared tensors changed, such as .*word_embeddings",
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_what_training_must_not_do_is_seen(planted: str, trained: Trained) -> None:
    change, message = PLANTED[planted]
    model = trained.attached.model
    after = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        if planted == "nothing moved":
            model.load_state_dict(trained.initial)
        change(model)
        with pytest.raises(AssertionError, match=message):
            check_training(trained)
    finally:
        model.load_state_dict(after)


def test_an_adapter_at_its_start_is_seen(trained: Trained) -> None:
    pair = trained.attached.pairs[0]
    before = pair.B.detach().clone()
    pair.B.data.zero_()
    try:
        with pytest.raises(AssertionError, match="no note says: 1 of 12 matrices had no gradient"):
            check_training(trained)
    finally:
        pair.B.data.copy_(before)


def test_an_adapter_without_gradient_is_seen(trained: Trained) -> None:
    name = trained.attached.adapter[1]
    frozen = {**trained.initial, name: trained.attached.model.state_dict()[name]}
    with pytest.raises(AssertionError, match=f"adapter parameters changed, not {name}"):
        check_training(replace(trained, initial=frozen))


def test_logits_that_stay_are_seen(trained: Trained) -> None:
    with pytest.raises(AssertionError, match="training changed the logits by a share of"):
        check_training(replace(trained, initial_logits=trained.logits))


def test_a_random_frozen_layer_is_seen(
    trip: Journey, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the pretrained file has no weights for a layer that is not saved either."""

    def load(*arguments: Any, **options: Any) -> Any:
        model, tokenizer = true_load(*arguments, **options)
        with torch.no_grad():
            model.get_submodule(layer).weight.normal_(std=0.02)
        return model, tokenizer

    true_load = iwlora.load_trained
    layer = trained.loaded.sites[0].name + ".base_layer"
    layer = f"base_model.model.{layer}"
    monkeypatch.setattr(iwlora, "load_trained", load, raising=False)
    with pytest.raises(AssertionError, match="the logits of load_trained differ by a share of"):
        trip.check_loading(trained)


def test_predictions_of_another_model_are_seen(trip: Journey, trained: Trained) -> None:
    with pytest.raises(AssertionError, match="of iwlora predict differ by a share of"):
        trip.check_predictions(with_logits(trained, scale=1.001))


def test_an_export_that_loses_the_head_is_seen(
    trip: Journey, trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def export(path: Path, to: Path, *options: Any) -> Path:
        folder = true_export(path, to, *options)
        file = folder / "adapter_model.safetensors"
        tensors = {name: value for name, value in load_file(file).items() if "lora_" in name}
        save_file(tensors, file, metadata={"format": "pt"})
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        config = json.dumps(config | {"modules_to_save": None, "task_type": None})
        (folder / "adapter_config.json").write_text(config, encoding="utf-8")
        return folder

    true_export = exporting.export
    monkeypatch.setattr(exporting, "export", export)
    with pytest.raises(AssertionError, match="of the exported adapter in PEFT differ"):
        in_another_folder(trip, tmp_path).check_export(trained)


def test_a_merged_model_that_differs_is_seen(
    trip: Journey, trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def merge(model: Any) -> Any:
        merged = true_merge(model)
        merged.classifier.bias.data.add_(0.01)
        return merged

    true_merge = artifacts.merge_adapter
    monkeypatch.setattr(artifacts, "merge_adapter", merge)
    with pytest.raises(AssertionError, match="of the merged model in transformers differ"):
        in_another_folder(trip, tmp_path).check_export(trained)


def in_another_folder(trip: Journey, folder: Path) -> Journey:
    """The same journey, whose exports go to another folder."""
    return replace(trip, folder=folder)


def with_logits(trained: Trained, scale: float) -> Trained:
    """The same run, as if the trained model had other logits."""
    changed = replace(trained)
    changed.__dict__["logits"] = {name: scale * value for name, value in trained.logits.items()}
    return changed


# --- outcomes, reasons and the exit status ---


def outcome(result: str, message: str = "", family: str = "bert") -> Outcome:
    return Outcome(family, "classification", "lora", result, message)


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (AssertionError("x"), "wrong"),
        (iwlora.IwloraError("x"), "refused"),
        (KeyError("x"), "traceback"),
    ],
)
def test_each_error_has_its_outcome(
    error: Exception, result: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    for name in ("measure", "train"):
        monkeypatch.setattr(Journey, name, fail)
    found = run_family("distilbert", "classification", ["lora"])
    assert [(row.method, row.result) for row in found] == [("", result), ("lora", result)]
    assert all("x" in row.message for row in found)


def test_what_transformers_cannot_compute_must_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def results() -> list[str]:
        return [row.result for row in run_family("bros", "token-labels", ["lora"])]

    assert results() == ["not computed"]

    def fail(*arguments: Any) -> None:
        raise KeyError

    monkeypatch.setattr(Journey, "train", fail)
    assert results() == ["not computed", "traceback"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_family_that_takes_too_long_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "SECONDS", 0.01)
    (row,) = run_family("distilbert", "classification", ["lora"])
    assert (row.result, row.message) == ("wrong", "computing takes more than 0.01 s")


def test_only_the_named_reason_is_accepted() -> None:
    known = LeftOut("bert|t5", "no such layer", "it has none")
    assert known.accepts(outcome("refused", "there is no such layer"))
    assert not known.accepts(outcome("refused", "another message"))
    assert not known.accepts(outcome("wrong", "no such layer"))
    assert not known.accepts(outcome("refused", "no such layer", family="bert_japanese"))


@pytest.mark.quick
@pytest.mark.parametrize(
    ("result", "status", "printed"),
    [
        ("equal", 0, "1 families with equal results, 0 left out"),
        ("refused", 0, "LEFT OUT     it has none | no such layer"),
        ("wrong", 1, "1 families with a wrong result or an unknown reason: bert"),
        ("traceback", 1, "TRACEBACK"),
        ("not computed", 1, "NOT COMPUTED"),
    ],
)
def test_the_exit_status_is_1_for_what_is_wrong(
    result: str,
    status: int,
    printed: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    known = (LeftOut("bert", "no such layer", "it has none"),)
    monkeypatch.setattr(architectures, "LEFT_OUT", known)
    monkeypatch.setattr(architectures, "run_family", lambda *_: (outcome(result, "no such layer"),))
    assert architectures.main(["bert", "--jobs", "1"]) == status
    assert printed in capsys.readouterr().out


def test_an_unknown_family_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        architectures.main(["bert", "no-such-family"])
    assert "no-such-family" in capsys.readouterr().err
