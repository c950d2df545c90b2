"""The folder of one run: its layout, its state, and to which recipe it belongs."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from iwlora import distributed
from iwlora.errors import IwloraError
from iwlora.inputs.paths import check_links, settled
from iwlora.inputs.yaml_json import from_json
from iwlora.results.writing import PART, exclusive, remove_parts, write_text
from iwlora.tasks.kinds import KINDS
from iwlora.tasks.task import Task
from iwlora.training.recipe import Recipe, load

_PACKAGES = ("iwlora", "torch", "transformers", "peft", "accelerate", "datasets")


LOCK = ".lock"
_MADE = (
    *("adapter", "model", "tokenizer", "checkpoints", "predictions", "figures", "logs", LOCK),
    *("recipe.yaml", "environment.json", "status.json", "metrics.jsonl", "penalty.jsonl"),
    *("sensitivity.json", "sensitivity.png", "sensitivity.svg", "result.json", "report.html"),
    *("comparison.yaml", "failures.jsonl", "search.json", "sources.yaml"),
    *("summary.json", "summary.md", "summary.csv", "summary.tex"),
)
"""What the folders of runs and comparisons hold."""
_BEGUN = {LOCK, "recipe.yaml", "environment.json", "status.json"}


class RunDir:
    """Opened by :meth:`open` for a recipe, or by :meth:`finished` to read what a run left.

    ``recipe.yaml`` replays the run, ``environment.json`` says where it ran, ``status.json`` how
    it stands, ``metrics.jsonl`` what it logged; ``checkpoints/``, ``sensitivity.json``,
    ``predictions/``, and ``adapter/`` (or ``model/`` for full fine-tuning) hold what it made.
    ``result.json`` is written last: where it is, the run is done.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.sensitivity = path / "sensitivity.json"
        self.predictions = path / "predictions"
        self.metrics = path / "metrics.jsonl"

    @classmethod
    def open(cls, path: str | Path, recipe: Recipe) -> RunDir:
        """Begin, or go on with, the run of a recipe.

        A run that failed before it did any work makes room for another recipe, and one that is
        done stays as it is. Raises ``IwloraError`` for a folder that holds another run or
        something else, or that cannot be written: nothing in it is touched then.
        """
        run = cls(settled(path))
        stored = run.path / "recipe.yaml"
        if run.path.exists() and not run.path.is_dir():
            raise IwloraError(f"{path} is a file; give a folder for the run")
        check_links(run.path)
        if stored.is_file():
            if load(str(stored)).digest() == recipe.digest():
                if run.result() is not None:
                    return run
            elif not run._failed_at_once():
                raise IwloraError(
                    f"{path} belongs to another recipe ({stored}); choose another folder, or "
                    "remove it if its run is not wanted any more"
                )
        elif run._names() - {LOCK}:
            raise IwloraError(f"{path} is not empty and holds no run; choose another folder")
        try:
            with run.alone():
                remove_parts(run.path)
                write_text(stored, recipe.to_yaml())
                told = json.dumps(environment(), indent=1) + "\n"
                write_text(run.path / "environment.json", told)
        except OSError as error:
            raise IwloraError(f"cannot write into {path}: {error.strerror}") from None
        return run

    @classmethod
    def finished(cls, path: str | Path) -> RunDir:
        """A run that is done; raises ``IwloraError`` for anything else."""
        run = cls(Path(path))
        if not run.path.is_dir():
            raise IwloraError(f"no such folder: {path}")
        check_links(run.path)
        if not (run.path / "recipe.yaml").is_file():
            raise IwloraError(f"{path} is not the folder of a run: it has no recipe.yaml")
        if run.result() is None:
            raise IwloraError(f"the run in {path} is not finished; start it again to go on with it")
        return run

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The folder for this process; raises ``IwloraError`` while another is at work in it."""
        if distributed.rank() > 0:
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        with exclusive(self.path / LOCK) as held:
            if not held:
                raise IwloraError(
                    f"another process is at work in {self.path}; wait for it, or choose another "
                    "folder"
                )
            yield

    def reserve(self, needed: int) -> None:
        """Raise ``IwloraError`` when the disk has not the bytes that the run will write."""
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise IwloraError(
                f"{self.path} has {free / 1e6:,.0f} MB of disk left, and the run writes about "
                f"{needed / 1e6:,.0f} MB; free some, or choose another folder"
            )

    def recipe(self) -> Recipe:
        """The recipe that the run follows."""
        return load(str(self.path / "recipe.yaml"))

    def result(self) -> dict[str, Any] | None:
        """``result.json``, or None while the run is not done; ``IwloraError`` if it is broken."""
        path = self.path / "result.json"
        if not path.is_file():
            return None
        try:
            value = from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise IwloraError(f"{path} is not a result file: {error}") from None
        if not isinstance(value, dict):
            raise IwloraError(f"{path} is not a result file: it holds no mapping")
        return value

    def task(self) -> Task:
        """What the run learned: kind, columns, classes and metrics, without splits.

        Raises ``IwloraError`` where ``result.json`` does not say it.
        """
        result = self.result() or {}
        lists = {"text": True, "labels": False, "task_metrics": True}  # may it not be empty?
        for name, filled in lists.items():
            value = result.get(name)
            if not isinstance(value, list) or (filled and not value):
                raise self._edited(f"list {name!r}")
        options = result.get("kind")
        if not isinstance(options, dict) or options.get("name") not in KINDS:
            raise self._edited("known 'kind'")
        kind = KINDS[options["name"]]
        try:
            made = kind(**{key: value for key, value in options.items() if key != "name"})
        except ValueError as error:
            raise self._edited(f"valid 'kind' ({error})") from None
        text, labels, metrics = (tuple(map(str, result[name])) for name in lists)
        return Task(str(result.get("task")), text, labels, {}, metrics, kind=made)

    def _edited(self, what: str) -> IwloraError:
        return IwloraError(f"{self.path / 'result.json'} has no {what}; was it edited?")

    def finish(self, result: dict[str, Any]) -> None:
        """Write the result: after this the run counts as done."""
        self.status("done")
        self.write("result.json", json.dumps(result, indent=1) + "\n")

    def status(self, state: str, **details: Any) -> None:
        """Say how the run stands: ``running``, ``failed``, ``diverged`` or ``done``."""
        self.write("status.json", json.dumps({"state": state, **details}) + "\n")

    def write(self, name: str, text: str) -> None:
        """Write a file of the run, once where several processes carry it out."""
        if distributed.rank() == 0:
            write_text(self.path / name, text)

    def _names(self) -> set[str]:
        """What is in the folder, but for what a killed process had not written to the end."""
        files = self.path.iterdir() if self.path.is_dir() else ()
        return {file.name for file in files if not file.name.endswith(PART)}

    def diverged(self) -> bool:
        """Whether its last attempt ended with numbers that are none, as a repetition would."""
        return bool(self._state() == "diverged")

    def _failed_at_once(self) -> bool:
        """Whether the run failed with nothing to show for it: a mistake in its recipe, say."""
        begun = self._names() <= _BEGUN
        return begun and bool(self._state() == "failed")

    def _state(self) -> Any:
        """What ``status.json`` says; None where it is not there or not whole."""
        try:
            status = from_json((self.path / "status.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return status.get("state") if isinstance(status, dict) else None


def environment() -> dict[str, Any]:
    """What the run depends on beside its recipe: versions and the machine, no names or secrets."""
    import torch

    return {
        "python": platform.python_version(),
        **{package: _version(package) for package in _PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if sys.platform == "linux" and information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def check_output(path: str | Path, option: str) -> None:
    """Raise ``IwloraError`` for a file that a run or a comparison has made, or may still make.

    A new file of another name may lie in such a folder.
    """
    target = Path(path).resolve()
    for folder in (target, *target.parents):
        results = (folder / "result.json").is_file() or (folder / "sources.yaml").is_file()
        begun = (folder / LOCK).is_file()
        inside = target.relative_to(folder).parts[:1]
        if (results or begun) and (not inside or inside[0] in _MADE):
            raise IwloraError(
                f"{option} {path} belongs to the results in {folder}; choose another place"
            )
