"""Makes a case's folder, runs its command in a fork under watch, and judges the end."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzzing.guard import Stopped, stopped_before_work
from hostile.case import Case, named, prepare
from hostile.fork import Ending, run
from hostile.judge import Broken, judge, pages_in
from hostile.roots import roots
from iwlora.cli import main
from iwlora.errors import IwloraError


@dataclass(frozen=True)
class Outcome:
    """How a case ended, and which properties it broke: (property, by what)."""

    case: Case
    ending: Ending
    broken: Broken

    @property
    def accepted(self) -> bool:
        """Whether the command did its work."""
        return self.ending.code == 0


def execute(
    case: Case, root: Path, folder: Path, started: Callable[[int], None] = lambda _: None
) -> Outcome:
    """Run a case in ``folder``, which is new and is removed.

    Args:
        case: The case.
        root: What ``originals.make`` filled.
        folder: Where the hostile folder and the outputs are.
        started: Is told the process.
    """
    (folder / "tmp").mkdir(parents=True)
    try:
        arguments = prepare(case, root, folder)
        wanted = named(arguments, folder / "it")
        outside = any(path.is_relative_to(root / "secret") for path in wanted)
        allowed, foreign = roots(folder, root, wanted), pages_in(folder)

        def work() -> int:
            return _command(case, arguments, root, folder)

        ending = run(work, folder, allowed, started=started)
        broken = judge(case, ending, folder, outside, foreign)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    # A recipe may name a model of the hub.
    kept = [one for one in broken if one[0] != "network" or not case.touches_recipe]
    return Outcome(case, ending, kept)


def _command(case: Case, arguments: list[str], root: Path, folder: Path) -> int:
    """Run the command line, or a public function, and return the exit code."""
    os.environ |= {"TMPDIR": str(folder / "tmp"), "XDG_CACHE_HOME": str(folder / "tmp")}
    tempfile.tempdir = str(folder / "tmp")
    warnings.simplefilter("ignore")
    try:
        with stopped_before_work(case.touches_recipe):
            return _call(arguments, root) if arguments[0] == "python" else main(arguments)
    except Stopped:
        (folder / "stopped").touch()
        return 0


def _call(arguments: list[str], root: Path) -> int:
    """Load a run or an adapter as Python programs do."""
    import torch
    from transformers import logging

    import iwlora
    from iwlora.training.model.backbone import load_backbone

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model: torch.nn.Module
        if arguments[1] == "load_trained":
            model, _ = iwlora.load_trained(arguments[2])
        else:
            backbone, _ = load_backbone(str(root / "originals" / "model"), ["neg", "pos"])
            model = iwlora.load_adapter(backbone, arguments[2])
    except IwloraError as error:
        os.write(2, f"error: {error!r}\n".encode("utf-8", "backslashreplace"))
        return 2
    print(type(model).__name__)
    return 0
