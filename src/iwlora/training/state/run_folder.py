"""The folder of one run: whose recipe it follows, how it stands, and the lock on it."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from iwlora import distributed
from iwlora.errors import CannotWrite, IwloraError
from iwlora.inputs.places import check_folder, entries, files_below
from iwlora.inputs.yaml_json import read_mapping, read_utf8
from iwlora.results import layout
from iwlora.results.file_digests import file_digest
from iwlora.results.fingerprint import Fingerprint, joined
from iwlora.results.formats import (
    Document,
    fits_text_digest,
    stamped,
    unstamped,
    with_digest,
    with_text_digest,
)
from iwlora.results.locks import exclusive
from iwlora.results.run import RunResult, Status, state_of
from iwlora.results.sensitivity import Sensitivity
from iwlora.results.writing import (
    check_named,
    output_folder,
    remove_parts,
    sync,
    write_errors,
    write_text,
)
from iwlora.training.recipe import Recipe, load
from iwlora.training.state.checkpoints import is_torn

logger = logging.getLogger("iwlora")

_PACKAGES = ("iwlora", "torch", "transformers", "peft", "accelerate", "datasets")


class RunDir:
    """The folder of a run; :mod:`iwlora.results.layout` says what is in it.

    Opened by :meth:`open` for a recipe, or by :meth:`finished` to read what a run left.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / layout.CHECKPOINTS
        self.sensitivity = path / layout.SENSITIVITY
        self.metrics = path / layout.METRICS

    @classmethod
    def open(cls, path: str | Path, recipe: Recipe) -> RunDir:
        """Begin the run of a recipe, or continue it.

        A run that failed before it did any work makes room for another recipe, and a finished one
        stays as it is. A run begun by an older version of iwlora, whose defaults were others,
        continues with these: :meth:`recipe` is the recipe to follow.

        Raises:
            IwloraError: The folder holds another run or something else, or cannot be written.
                Nothing in it is changed then.
        """
        run = cls(output_folder(path, "run"))
        stored = run.path / layout.RECIPE
        continues = stored.is_file() and run._follows(recipe)
        if continues and run.result() is not None:
            return run
        if stored.is_file() and not continues and not run._failed_at_once():
            differing = joined(run.recipe().differences(recipe))
            raise IwloraError(
                f"{path} belongs to another recipe ({stored}): {differing}; choose another folder, "
                "or remove it if you do not need its run any more"
            )
        if not stored.is_file() and run._names() - {layout.LOCK, layout.BAD_ROWS}:
            raise IwloraError(f"{path} is not empty and holds no run; choose another folder")
        try:
            with run.alone():
                remove_parts(run.path)
                if not continues or run._recipe_was_edited():
                    write_text(stored, with_text_digest(recipe.to_yaml()))
                about = with_digest(stamped("environment", environment()))
                write_text(run.path / layout.ENVIRONMENT, json.dumps(about, indent=1) + "\n")
        except OSError as error:
            raise CannotWrite(f"cannot write into {path}: {error.strerror}") from None
        return run

    @classmethod
    def finished(cls, path: str | Path) -> RunDir:
        """A finished run; raises ``IwloraError`` for anything else."""
        check_named(path)
        run = cls(Path(path))
        if not run.path.is_dir():
            raise IwloraError(f"no such folder: {path}")
        check_folder(run.path)
        if not (run.path / layout.RECIPE).is_file():
            raise IwloraError(f"{path} is not the folder of a run: it has no {layout.RECIPE}")
        if run.result() is None:
            raise IwloraError(f"the run in {path} is not finished; start it again to continue it")
        return run

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes out of the folder; ``IwloraError`` if one already works in it."""
        if distributed.rank() > 0:
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        with exclusive(self.path / layout.LOCK) as held:
            if not held:
                raise IwloraError(
                    f"another process is at work in {self.path}; wait for it, or choose another "
                    "folder"
                )
            yield

    def kept(self) -> str:
        """A sentence on what a run that has to stop does not lose."""
        steps = [
            step
            for path in entries(self.checkpoints)
            if (step := layout.checkpoint_step(path)) is not None and not is_torn(path)
        ]
        if not steps:
            return f"the run in {self.path} has no checkpoint, so a repeated command begins it anew"
        return (
            f"the checkpoint of step {max(steps)} of the run in {self.path} is safe, and a "
            "repeated command continues from it"
        )

    def recipe(self) -> Recipe:
        """The recipe that the run follows, with the defaults of the version that began it."""
        path = self.path / layout.RECIPE
        try:
            return load(str(path)).with_former_defaults(self._recipe_format())
        except IwloraError as error:
            raise IwloraError(f"{path} is damaged, or was edited: {error}") from None

    def result(self) -> RunResult | None:
        """The result, or None while the run is not finished; ``IwloraError`` if it is damaged."""
        path = self.path / layout.RESULT
        return RunResult.load(path) if path.is_file() else None

    def has_work(self) -> bool:
        """Whether the run left something that it goes on from: a measurement or a checkpoint."""
        return self.sensitivity.is_file() or any(
            layout.checkpoint_step(path) is not None for path in entries(self.checkpoints)
        )

    def tie_measurement(self, fingerprint: Fingerprint) -> None:
        """Add the fingerprint to a measurement that was made while training."""
        if self.sensitivity.is_file():
            measured = Sensitivity.load(self.sensitivity)
            replace(measured, fingerprint=fingerprint).save(self.sensitivity)

    def finish(self, result: RunResult) -> RunResult:
        """Write the result, after all else is on the disk: from now on the run is finished.

        Returns:
            The result with the digests of what the run left.
        """
        self.set_status("done")
        files = distributed.run_on_main_process(self._synced_digests)
        result = result.model_copy(update={"files": files})
        self._save(result, layout.RESULT)
        return result

    def _synced_digests(self) -> dict[str, str]:
        """:meth:`file_digests`, once the files are on the disk."""
        digests = self.file_digests()
        files = [self.path / name for name in digests]
        with write_errors("the result", self.path):
            for path in [*files, *sorted({file.parent for file in files})]:
                sync(path)
        return digests

    def file_digests(self) -> dict[str, str]:
        """{path in the folder: SHA-256} of what a run leaves, without its result.

        The folder of each checkpoint has a seal of its own.
        """
        own = (layout.ADAPTER, layout.MODEL, *layout.PROCESSORS, layout.PREDICTIONS)
        files = [self.path / name for name in sorted(layout.RECORDS)]
        files += entries(self.checkpoints)
        files += [file for name in own for file in files_below(self.path / name)]
        kept = [file for file in files if file.is_file() and not _is_part(file.name)]
        return {file.relative_to(self.path).as_posix(): file_digest(file) for file in kept}

    def set_status(self, state: str, error: str | None = None) -> None:
        """Write how the run stands: "running", "failed", "diverged" or "done"."""
        self._save(Status(state=state, error=error), layout.STATUS)

    def _save(self, document: Document, name: str) -> None:
        """Write a file of the run, once if several processes work on it."""
        if distributed.rank() == 0:
            document.save(self.path / name)

    def _follows(self, recipe: Recipe) -> bool:
        """Whether the stored run is that of the recipe, with the defaults of its own version."""
        accepted = {recipe.digest(), recipe.with_former_defaults(self._recipe_format()).digest()}
        return self.recipe().digest() in accepted

    def _recipe_was_edited(self) -> bool:
        """Whether the text of the stored recipe is not what was written, whatever it means."""
        path = self.path / layout.RECIPE
        if fits_text_digest(read_utf8(path)) is not False:
            return False
        logger.warning(f"{path} was edited or is damaged; it is written anew, for the same recipe")
        return True

    def _recipe_format(self) -> int:
        """The version of the format of the stored recipe."""
        path = self.path / layout.RECIPE
        return unstamped("recipe", read_mapping(path), path)[1]

    def _names(self) -> set[str]:
        """What is in the folder, except parts of files that a killed process was writing."""
        files = self.path.iterdir() if self.path.is_dir() else ()
        return {file.name for file in files if not _is_part(file.name)}

    def _failed_at_once(self) -> bool:
        """Whether the run failed before any work, as for a mistake in its recipe."""
        return self._names() <= layout.WRITTEN_BEFORE_WORK and state_of(self.path) == "failed"


def _is_part(name: str) -> bool:
    return name.endswith(layout.PART_SUFFIX)


def environment() -> dict[str, Any]:
    """Versions and hardware; no names of users or hosts, and no secrets."""
    import torch

    return {
        "python": platform.python_version(),
        **{package: _version(package) for package in _PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
