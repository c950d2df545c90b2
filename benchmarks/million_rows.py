"""The memory that a million rows need: to describe them, and to train on them.

    python benchmarks/million_rows.py [--rows 1000000]

Writes a file in each format and runs `iwlora tasks show` and `iwlora train` on it as a user would:
with `task.max_train`, and with every row encoded and a few steps of training. Prints the peak
resident memory of each command's process.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

LIMIT = 2 * 2**30
WORDS = (
    "the a film plot actor scene music was is seems good bad dull bright long short and but very "
    "quite never always somehow story ending first last year saw liked hated"
).split()
TRAIN = ["train.max_length=64", "task.max_validation=200"]


def rows(count: int) -> Iterator[dict[str, str]]:
    """Reviews of 20 to 60 words, of two classes."""
    draw = random.Random(0)
    for number in range(count):
        words = draw.choices(WORDS, k=draw.randint(20, 60))
        yield {"text": f"{number}: {' '.join(words)}", "label": ("neg", "pos")[number % 2]}


def write(path: Path, count: int) -> None:
    """Write the rows in the format of the file's ending."""
    if path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        table = pyarrow.Table.from_pylist(list(rows(count)))
        parquet.write_table(table, path, row_group_size=50_000)
        return
    with path.open("w", newline="", encoding="utf-8") as stream:
        if path.suffix == ".jsonl":
            stream.writelines(json.dumps(row) + "\n" for row in rows(count))
        else:
            writer = csv.DictWriter(stream, ["text", "label"])
            writer.writeheader()
            writer.writerows(rows(count))


def measure(command: list[str]) -> tuple[float, int]:
    """(seconds, bytes of peak resident memory) of a command of iwlora."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "iwlora", *command], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"iwlora {' '.join(command)} ended with status {status}")
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - started, usage.ru_maxrss * unit


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    count = parser.parse_args().rows
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    over_limit = False
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.yaml"
        for ending in ("csv", "jsonl", "parquet"):
            file = Path(folder) / f"reviews.{ending}"
            write(file, count)
            recipe.write_text(f"model: builtin/minilm\ntask: {{train: {file}}}\nmethod: lora\n")
            train = ["train", str(recipe), *TRAIN, "--out"]
            few = [*train, f"{folder}/few-{ending}", "task.max_train=320", "train.epochs=1"]
            every = [*train, f"{folder}/all-{ending}", f"train.epochs={320 / count}"]
            commands = {"tasks show": ["tasks", "show", f"task.train={file}"]}
            if ending == "csv":
                commands |= {"train, 320 rows": few, "train, all encoded": every}
            for name, command in commands.items():
                seconds, memory = measure(command)
                over_limit |= memory > LIMIT
                size = file.stat().st_size / 2**20
                print(
                    f"{ending:<8} {size:>4.0f} MiB  {name:<19} {memory / 2**30:.2f} GiB"
                    f"  {seconds:.0f} s",
                    flush=True,
                )
            file.unlink()
    return int(over_limit)


if __name__ == "__main__":
    sys.exit(main())
