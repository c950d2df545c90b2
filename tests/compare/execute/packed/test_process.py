"""The runs of a pack: their folders, logs and exit codes, and going on after an interruption."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from iwlora.compare.execute.packed.process import pack_command, train_together
from iwlora.results.writing import write_text
from iwlora.training.packed.pack import Pack
from iwlora.training.recipe import Recipe
from iwlora.training.run import train
from iwlora.training.state.run_folder import RunDir
from runs import logged, recipe, weights, with_options


class InterruptedPack(Pack):
    """Gets a signal while it computes its fifth pass."""

    def _forward(self, seats: Any) -> None:
        super()._forward(seats)
        if self.passes == 5:
            self.interrupt(signal.SIGTERM)


def exits(runs: list[tuple[Path, Path]], pack: Pack) -> dict[int, int]:
    ended = io.StringIO()
    train_together(runs, pack, ended)
    lines = map(json.loads, ended.getvalue().splitlines())
    return {line["run"]: line["exit"] for line in lines}


def losses(folder: Path) -> list[float]:
    return [record["loss"] for record in logged(folder) if "loss" in record]


@pytest.mark.quick
def test_a_pack_that_is_interrupted_goes_on_together_or_alone(
    with_dropout: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    """Each run ends with the losses and the weights that it has alone, and an ordinary folder."""
    recipes: list[Recipe] = [
        recipe(with_dropout, reviews, "lora", seed=1),
        with_options(recipe(with_dropout, reviews, "iw-lora", lr=5e-3), measure="before"),
        recipe(with_dropout, reviews, "bitfit", seed=2),
    ]
    runs = []
    for number, run_recipe in enumerate(recipes):
        RunDir.open(tmp_path / f"packed-{number}", run_recipe)
        runs.append((tmp_path / f"packed-{number}", tmp_path / f"log-{number}.txt"))
    broken = tmp_path / "broken"
    broken.mkdir()
    write_text(broken / "recipe.yaml", "model: [\n")
    assert exits([*runs, (broken, tmp_path / "broken.txt")], InterruptedPack()) == {
        **dict.fromkeys(range(3), 130),
        3: 2,
    }
    assert "error: " in (tmp_path / "broken.txt").read_text()
    for folder, log in runs:
        assert "checkpoint of step 5" in log.read_text()
        assert not (folder / "result.json").exists()
    pack = Pack()
    assert exits(runs[:2], pack) == {0: 0, 1: 0}
    assert pack.passes == 7
    train(recipes[2], runs[2][0])
    for number, run_recipe in enumerate(recipes):
        alone, packed = tmp_path / f"alone-{number}", runs[number][0]
        expected = train(run_recipe, alone)
        result = json.loads((packed / "result.json").read_text())
        assert result["resumed_at_step"] == 5
        assert result["other_runs"] == (0 if number == 2 else 1)
        assert result["peak_memory_bytes"] > 2**20
        for field in ("fingerprint", "data_digest", "head_digest", "train_examples"):
            assert result[field] == expected[field], field
        assert result["metrics"] == pytest.approx(expected["metrics"], abs=1e-3)
        if list(packed.rglob("loss-0.json")):  # the first versions of transformers 5 write none
            assert losses(packed) == pytest.approx(losses(alone), abs=1e-3)
        ended, expected_weights = weights(packed), weights(alone)
        assert all(torch.allclose(ended[n], w, atol=1e-3) for n, w in expected_weights.items())


def test_the_command_of_a_pack_names_its_runs(tmp_path: Path) -> None:
    command = pack_command([(tmp_path / "a", tmp_path / "a.txt")], 8)
    order = {"runs": [[str(tmp_path / "a"), str(tmp_path / "a.txt")]], "most_runs": 8}
    assert json.loads(command[-1]) == order


def test_only_the_pack_writes_to_its_standard_output() -> None:
    """Neither what a library in C prints, nor what another program prints, comes in between."""
    code = (
        "import os\n"
        "from iwlora.compare.execute.packed.process import take_standard_output\n"
        "output = take_standard_output()\n"
        "print('python', flush=True)\n"
        "os.write(1, b'library\\n')\n"
        "os.system('echo program')\n"
        "output.write('pack')\n"
        "output.flush()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr.split()) == ("pack", ["python", "library", "program"])
