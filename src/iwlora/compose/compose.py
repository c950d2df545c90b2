"""Making pools: of runs, and of a pool with sources removed or added."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from iwlora.compose.agreement import average_of, check_agreement
from iwlora.compose.pool import Pool
from iwlora.compose.prototypes import check_prototypes, save_prototypes, source_prototypes
from iwlora.errors import IwloraError, listed, raise_all, unknown
from iwlora.extras import name_missing_extra
from iwlora.inputs.places import files_below, inside
from iwlora.results import layout
from iwlora.results.file_digests import file_digest
from iwlora.results.pool import PoolRecord, Weights, is_source_name
from iwlora.results.writing import (
    check_output,
    follow_umask,
    new_folder_path,
    reserve,
    whole_folder,
)
from iwlora.tasks.metrics.logits import Average
from iwlora.training.state.artifacts import saved_model
from iwlora.training.state.run_folder import RunDir

_KEPT = (layout.ADAPTER, layout.MODEL, *layout.PROCESSORS, layout.PREDICTIONS)
"""The folders of a run that a pool has; the files beside them are the recipe and the result."""


@name_missing_extra()
def compose(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    add: Sequence[str | Path] = (),
    remove: Sequence[str] = (),
    weights: Weights | None = None,
    average: Average | None = None,
    trust_remote_code: bool = False,
) -> Path:
    """Write a pool of finished runs, which predicts with any of them.

    Equal sources give equal bytes, whatever their order and whether they were there from the
    beginning: a pool has no dates and no history.

    Args:
        sources: Folders of finished runs, each as ``PATH`` or ``NAME=PATH``; or one pool.
        out: The new folder.
        add: Further runs, where ``sources`` is a pool.
        remove: Names of sources that the new pool does not have.
        weights: ``mean`` or ``prototypes``; None: as the pool has it, or mean.
        average: ``probabilities`` or ``logits``; None: as the pool has it, or what the kind of task
            averages by default. Numbers are averaged as they are.
        trust_remote_code: As for :func:`iwlora.load_trained`; prototypes need the backbone.

    Returns:
        ``out`` as a path.

    Raises:
        IwloraError: A folder is no finished run, was changed, or has no unique name; the runs do
            not fit together, the message names in what; or ``out`` exists, or is in a run or pool.

    Example:
        >>> compose(["a=runs/a", "b=runs/a"], "pool").name
        'pool'
        >>> compose(["pool"], "pool-without-b", remove=["b"]).name
        'pool-without-b'
    """
    target = new_folder_path(out)
    check_output(target, "--out")
    former = _only_pool(sources, add, remove)
    runs, files = dict[str, RunDir](), dict[str, dict[str, Path]]()
    if former is not None:
        for name in _remaining(former, remove):
            runs[name] = former.source(name)
            listed_files = former.record.sources[name]
            files[name] = {file: former.folder_of(name) / file for file in listed_files}
        weights = weights or former.record.weights
        average = average or former.record.average
    for name, path in _named(add if former else sources, taken=runs).items():
        runs[name] = RunDir.finished(path)
        files[name] = dict(_kept_files(runs[name]))
    _check_not_empty(runs)
    runs = dict(sorted(runs.items()))
    check_agreement(runs)
    average = average_of(next(iter(runs.values())), average)
    weights = weights or "mean"
    if weights == "prototypes":
        check_prototypes(next(iter(runs.values())))
    else:
        files = {name: _without_prototypes(kept) for name, kept in files.items()}
    needed = sum(path.stat().st_size for kept in files.values() for path in kept.values())
    reserve(target, needed, "the pool")
    with whole_folder(target) as folder:
        for name in runs:
            _copy(files[name], layout.source_folder(folder, name))
            prototypes = layout.source_folder(folder, name) / layout.PROTOTYPES
            if weights == "prototypes" and not prototypes.exists():
                save_prototypes(source_prototypes(name, runs[name], trust_remote_code), prototypes)
        follow_umask(folder)
        digests = {name: _digests(layout.source_folder(folder, name)) for name in runs}
        record = PoolRecord(weights=weights, average=average, sources=digests)
        record.save(folder / layout.POOL)
    return target


def split_name(source: str | Path) -> tuple[str, Path]:
    """(name, folder) of a source that is given as ``NAME=PATH``, or as a path.

    The name of a path is that of its folder.

    >>> name, path = split_name("a=runs/tenant-a")
    >>> name, path.as_posix()
    ('a', 'runs/tenant-a')
    >>> split_name("runs/lr=0.1")[0]
    'lr=0.1'
    """
    name, equals, path = str(source).partition("=")
    if equals and path and is_source_name(name) and not Path(source).exists():
        return name, Path(path)
    return Path(source).resolve().name, Path(source)


def _only_pool(
    sources: Sequence[str | Path], add: Sequence[str | Path], remove: Sequence[str]
) -> Pool | None:
    """The pool that is changed; None where runs are composed."""
    pools = [path for _, path in map(split_name, sources) if layout.is_pool(path)]
    if not pools:
        if add or remove:
            option = "--add" if add else "--remove"
            raise IwloraError(
                f"{option} changes a pool, and {listed([*map(str, sources)])} is none; to compose "
                "runs, give them without it"
            )
        return None
    if len(sources) > 1:
        raise IwloraError(
            f"{pools[0]} is a pool; give it alone, and add runs to it with --add NAME=RUN"
        )
    return Pool.load(pools[0])


def _remaining(pool: Pool, remove: Sequence[str]) -> list[str]:
    for name in remove:
        if name not in pool.names:
            raise IwloraError(f"--remove: {unknown('source', name, pool.names)}")
    return [name for name in pool.names if name not in remove]


def _check_not_empty(runs: Mapping[str, RunDir]) -> None:
    if not runs:
        raise IwloraError("no source is left; a pool needs at least one, so leave one or --add one")


def _named(sources: Iterable[str | Path], taken: Iterable[str]) -> dict[str, Path]:
    """{name: folder}; names that differ by case alone would be one folder on some systems."""
    named: dict[str, Path] = {}
    known = {name.lower(): f"the pool's {name}" for name in taken}
    problems = []
    for source in sources:
        name, path = split_name(source)
        if not is_source_name(name):
            problems.append(
                f"{source}: {name!r} cannot be the name of a source (letters, digits and . _ + = "
                f"-); give NAME={path}"
            )
        elif name.lower() in known:
            problems.append(
                f"{source} and {known[name.lower()]} have the same name {name!r}; give "
                f"NAME={path} with another one"
            )
        known[name.lower()] = str(source)
        named[name] = path
    raise_all(problems)
    return named


def _kept_files(run: RunDir) -> Iterator[tuple[str, Path]]:
    """(name in the source's folder, file) of what a pool keeps of a finished run.

    Raises ``IwloraError`` for a run whose files are not what it left.
    """
    saved_model(run)
    result = run.result()
    left = dict(result.files) if result else {}
    yield from ((name, run.path / name) for name in (layout.RECIPE, layout.RESULT))
    for path in (file for name in _KEPT for file in files_below(run.path / name)):
        name = path.relative_to(run.path).as_posix()
        if path.suffix == ".md" or (left and name not in left):
            continue  # a model card, which its owner may edit; what the run did not leave
        if left and file_digest(path) != left[name]:
            raise IwloraError(f"{path} is damaged: it is not what the run left; restore it")
        yield name, path


def _without_prototypes(files: Mapping[str, Path]) -> dict[str, Path]:
    return {name: path for name, path in files.items() if name != layout.PROTOTYPES}


def _copy(files: Mapping[str, Path], folder: Path) -> None:
    for name, path in files.items():
        copy = inside(folder, name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _digests(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files_below(folder)}
