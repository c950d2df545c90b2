"""The comparison with a plain Trainer and PEFT: equal work on both sides, and its arithmetic."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest
import torch

from iwlora import cli
from iwlora.methods import METHODS
from iwlora.sites import sites
from iwlora.tasks import TaskSpec, load
from iwlora.training.loop.task_loss import task_loss
from iwlora.training.model.backbone import load_backbone

ROWS = 6


@pytest.fixture
def glue(tmp_path: Path) -> Path:
    """RTE in the official layout, of six pairs."""
    folder = tmp_path / "glue" / "RTE"
    folder.mkdir(parents=True)
    labels = ("entailment", "not_entailment")
    rows = [f"{n}\tthe dog sees {'a cat ' * n}\tthe dog runs\t{labels[n % 2]}" for n in range(ROWS)]
    for split in ("train", "dev"):
        lines = ["index\tsentence1\tsentence2\tlabel", *rows]
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder.parent


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")
def test_the_plain_script_computes_the_same(
    script: Any, glue: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    """The same loss and the same gradient of the head from the same rows, in single precision."""
    plain = script("plain_peft")
    out = tmp_path / "result.json"
    options = [f"--glue={glue}", f"--model={tiny_bert}", f"--out={out}", "--epochs=1", "--rank=4"]
    trainer = plain.make_trainer(plain.parse_options(options), str(tmp_path / "plain"))
    rows = [trainer.train_dataset[row] for row in range(ROWS)]
    batch = trainer.data_collator(rows)
    theirs = trainer.compute_loss(trainer.model, dict(batch))
    theirs.backward()
    head = trainer.model.get_parameter("base_model.model.classifier.modules_to_save.default.weight")

    task = load(TaskSpec(name="glue/rte", data_dir=str(glue)), 0)
    torch.manual_seed(0)
    model, tokenizer = load_backbone(str(tiny_bert), task.labels)
    attached = METHODS["lora"]().sized(4).attach(model, sites(model), seed=0)
    encoded = task.encode(tokenizer, 128 // 2, model.config)["train"]
    ours_batch = task.kind.collator(tokenizer, model)([encoded[row] for row in range(ROWS)])
    labels = ours_batch.pop("labels")
    ours = task_loss(None)(attached.model(**ours_batch), labels)
    ours.backward()

    assert trainer.args.train_batch_size == 32
    assert sorted(dict(trainer.model.named_parameters())) == sorted(
        dict(attached.model.named_parameters())
    )
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(attached.model.get_parameter(attached.head[0]).grad, head.grad)
    trainer.train()
    assert trainer.state.global_step == 1
    assert set(trainer.evaluate()) >= {"eval_accuracy", "eval_f1"}


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")
def test_every_arm_is_measured_once_and_printed(
    script: Any,
    glue: Path,
    tiny_bert: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The commands run in this process; processes of their own are tested below."""
    throughput, plain = script("throughput"), script("plain_peft")

    def run_here(command: list[str], threads: int) -> Any:
        with contextlib.redirect_stdout(io.StringIO()):
            if command[:2] == ["-m", "iwlora"]:
                assert cli.main(command[2:]) == 0
            else:
                assert command[0] == plain.__file__
                plain.main(command[1:])
        return cost(seconds=1.0, processor_seconds=2.0, peak_memory=2**20)

    cost = script("timed_commands").Cost
    monkeypatch.setattr(throughput, "run_command", run_here)
    arms = ["Trainer + PEFT LoRA", "iwlora iw-lora, in flight"]
    arguments = [f"--glue={glue}", f"--out={tmp_path / 'runs'}", f"--model={tiny_bert}"]
    arguments += [
        "--tasks=rte",
        "--seeds=1",
        "--epochs=1",
        "--threads=1",
        "--rows=4",
        "--arms",
        *arms,
    ]
    throughput.MAX_LENGTH = 64
    throughput.main(arguments)
    first = capsys.readouterr().out
    throughput.main(arguments)
    again = capsys.readouterr().out
    assert first.count(" took ") == len(arms)
    assert first.endswith(again)
    assert "4 training rows, 1 epochs, 1 seeds" in again
    assert all(f"| {arm} | " in again for arm in arms)
    assert "| iwlora iw-lora, in flight / Trainer + PEFT LoRA | examples/s | ≥ 2.0 | " in again


def record(speed: float, metric: float) -> dict[str, float]:
    fields = ("step_seconds", "training_seconds", "run_seconds", "processor_seconds", "peak_memory")
    return {"examples_per_second": speed, "metric": metric, **dict.fromkeys(fields, 1 / speed)}


def test_ratios_and_differences_are_taken_within_a_seed(script: Any) -> None:
    throughput = script("throughput")
    lora, _, ours, weighted, *_ = throughput.ARMS
    records = {
        lora: {0: record(10.0, 0.50), 1: record(5.0, 0.60)},
        ours: {0: record(21.0, 0.5), 1: record(11.0, 0.5)},
        weighted: {0: record(20.0, 0.51), 1: record(10.0, 0.61)},
    }
    speed = throughput.ratio(records, weighted, lora, "examples_per_second")
    assert throughput.with_interval(speed, ".2f") == "2.00 (2.00 to 2.00)"
    assert (speed.mean, speed.sd) == (2.0, 0.0)
    assert throughput.quality_difference(records, weighted, lora, "f1") == "+1.0 (+1.0 to +1.0)"
    printed = {tuple(row[:2]): row[-1] for row in throughput.goals(records)}
    assert printed[f"{weighted} / {lora}", "examples/s"] == "2.000 (2.000 to 2.000)"
    assert printed[f"{weighted} / {ours}", "whole run"].startswith("1.075 ")


def test_a_command_is_timed_in_a_process_of_its_own(script: Any) -> None:
    timed_commands = script("timed_commands")
    cost = timed_commands.run_command(["-c", "x = bytes(50_000_000)"], threads=1)
    assert cost.seconds > 0
    assert cost.peak_memory > 50_000_000
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        timed_commands.run_command(["-c", "1 / 0"], threads=1)


def test_a_slower_arm_is_seen_where_two_runs_take_turns(script: Any) -> None:
    measuring = script("measuring_in_runs")
    seconds = [{"lora": 10.0, "iw-lora": 10.0 * more} for more in (1.03, 1.04, 1.05)]
    found = [{arm: {"steps": s, "run": 2 * s} for arm, s in seed.items()} for seed in seconds]
    steps, whole = measuring.ratios(found)
    assert steps == ["training steps", "10.0", "10.4", "1.040 (1.015 to 1.065)"]
    assert whole[1:3] == ["20.0", "20.8"]


@pytest.mark.slow
def test_two_runs_take_turns_and_count_their_own_time(
    script: Any, glue: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"--glue={glue}", f"--model={tiny_bert}", "--task=glue/rte", "--rows=4"]
    script("measuring_in_runs").main([*arguments, "--seeds=2", "--max-length=64"])
    printed = capsys.readouterr().out
    assert "seed 0: lora " in printed
    assert "seed 1: iw-lora " in printed
    assert "4 rows, epochs: 1, 2 seeds" in printed
