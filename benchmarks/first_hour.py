"""How long the steps of the first hour take, from a clean clone of the last commit.

    python benchmarks/first_hour.py
    python benchmarks/first_hour.py --environment .venv --without-bf16

The steps are: install, the demo, a first result on one's own data, and the start of each command.
Their durations are those of a user who waits, so nothing else should work on the machine; the last
line says what did.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from iwlora.tasks.corpora.sentiment import generate
from timed_commands import machine, table

ROOT = Path(__file__).parents[1]
DEMO = "compare recipes/compare/quickstart.yaml --jobs 2 --out runs/quickstart".split()
OWN_DATA = "train reviews.csv --out runs/reviews".split()
STARTS = (
    ["--help"],
    ["tasks"],
    ["methods"],
    ["train", "wrong.yaml", "--out", "runs/wrong"],
    ["report", "runs/quickstart"],
    ["verify", "runs/quickstart"],
)
FIRST_LINE = "train recipes/quickstart.yaml --out runs/first-line".split()
NO_BF16 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
WRONG = "model: builtin/minilm\ntask: builtin/sentimant\nmethod: lorra\ntrain: {lrate: 1}\n"


@dataclass(frozen=True)
class Clone:
    """A clone of the repository, and the environment that its commands run in.

    Args:
        folder: The clone.
        environment: The folder of the virtual environment.
        without_bf16: Compute as a CPU does that does not multiply bfloat16.
    """

    folder: Path
    environment: Path
    without_bf16: bool = False

    def command(self, arguments: Sequence[str]) -> list[str]:
        """A command of the clone; what trains gets its precision."""
        trains = self.without_bf16 and arguments[0] in ("train", "compare")
        fp32 = ["train.precision=fp32"] if trains else []
        python = str(self.environment / "bin" / "python")
        return [python, "-m", "iwlora", *arguments, *fp32]

    def variables(self) -> dict[str, str]:
        """The environment variables of its commands."""
        own = {"PYTHONPATH": str(self.folder / "src")}
        return {**os.environ, **own, **(NO_BF16 if self.without_bf16 else {})}

    def seconds(self, command: Sequence[str], accepted: Sequence[int] = (0,)) -> float:
        """How long a command takes; raises ``RuntimeError`` for another exit code."""
        started = time.perf_counter()
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        seconds = time.perf_counter() - started
        if done.returncode not in accepted:
            text = done.stdout.decode(errors="replace")
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{text[-3000:]}")
        return seconds

    def seconds_to_first_line(self, command: Sequence[str]) -> float:
        """How long a command takes to print its first line; it is ended then."""
        started = time.perf_counter()
        with subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            seconds = time.perf_counter() - started
            process.terminate()
        if not line:
            raise RuntimeError(f"{' '.join(command)} printed nothing")
        return seconds


def write_reviews(path: Path) -> None:
    """A file as people have them: other names of columns, another order, a column too many."""
    rows = generate(seed=1, train=480, validation=0, test=0)["train"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["Id", "Sentiment", "Review Text"])
        writer.writerows([n, row["label"], row["text"]] for n, row in enumerate(rows, start=1))


def measure(clone: Clone, installs: bool, repeats: int) -> list[tuple[str, str, float]]:
    """(step, command, seconds) of each step."""
    steps = []
    if installs:
        install = ["make", ".venv/.demo"]
        steps.append(("install", "make .venv/.demo", clone.seconds(install)))
    steps.append(("demo", _text(DEMO), clone.seconds(clone.command(DEMO))))
    write_reviews(clone.folder / "reviews.csv")
    own = clone.seconds(clone.command(OWN_DATA))
    steps.append(("first result on own data, 480 rows", _text(OWN_DATA), own))
    (clone.folder / "wrong.yaml").write_text(WRONG, encoding="utf-8")
    for arguments in STARTS:
        accepted = (2,) if "wrong.yaml" in arguments else (0,)
        command = clone.command(arguments)
        times = [clone.seconds(command, accepted) for _ in range(repeats)]
        steps.append((f"start, median of {repeats}", _text(arguments), statistics.median(times)))
    first = [clone.seconds_to_first_line(clone.command(FIRST_LINE)) for _ in range(repeats)]
    steps.append(("its first line", _text(FIRST_LINE), statistics.median(first)))
    return steps


def _text(arguments: Sequence[str]) -> str:
    return " ".join(["iwlora", *arguments])


def format_seconds(seconds: float) -> str:
    """A duration for the table.

    >>> format_seconds(0.7312), format_seconds(96.5)
    ('0.7 s', '1 min 36 s')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--environment", type=Path, help="an environment to use; default: one is installed"
    )
    parser.add_argument(
        "--without-bf16", action="store_true", help="compute without instructions for bfloat16"
    )
    parser.add_argument("--repeats", type=int, default=5, help="of each start of a command")
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "iwlora"
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, folder], check=True)
        installed = arguments.environment or folder / ".venv"
        # Not resolved: the interpreter of an environment is a link out of it.
        clone = Clone(folder, Path(os.path.abspath(installed)), arguments.without_bf16)
        steps = measure(clone, arguments.environment is None, arguments.repeats)
    rows = [(step, f"`{command}`", format_seconds(seconds)) for step, command, seconds in steps]
    print(table(["step", "command", "time"], rows))
    without = ", without instructions for bfloat16" if arguments.without_bf16 else ""
    print(f"\n{machine()}{without}; processes at work before: {load_before:.1f}")


if __name__ == "__main__":
    main()
