"""A pool on the disk: what it keeps of each source, and whether that is what was composed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from iwlora.errors import IwloraError, listed, unknown
from iwlora.inputs.places import check_folder, files_below
from iwlora.results import layout
from iwlora.results.file_digests import file_digest
from iwlora.results.pool import PoolRecord
from iwlora.results.writing import check_named
from iwlora.tasks.task import Task
from iwlora.training.state.intact import Check, State, check_document
from iwlora.training.state.run_folder import RunDir
from iwlora.training.state.stored_task import stored_task


@dataclass(frozen=True)
class Pool:
    """The folder of a pool and its record."""

    folder: Path
    record: PoolRecord

    @classmethod
    def load(cls, path: str | Path) -> Pool:
        """The pool in a folder; ``IwloraError`` for anything else. Its sources are not read yet."""
        check_named(path)
        folder = Path(path)
        if not folder.is_dir():
            raise IwloraError(f"no such folder: {path}")
        if not layout.is_pool(folder):
            raise IwloraError(f"{path} is no pool of iwlora compose: it has no {layout.POOL}")
        check_folder(folder)
        return cls(folder, PoolRecord.load(folder / layout.POOL))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all sources, sorted."""
        return tuple(sorted(self.record.sources))

    def chosen(self, use: Iterable[str] | None, origin: str = "--use") -> tuple[str, ...]:
        """Names of sources, sorted and each once; all of them for None.

        Args:
            use: The names that were given.
            origin: Where they were given, for the message.

        Raises:
            IwloraError: A name is unknown, or none is given.
        """
        if use is None:
            return self.names
        names = sorted(set(use))
        for name in names:
            if name not in self.record.sources:
                raise IwloraError(f"{origin}: {unknown('source', name, self.names)}")
        if not names:
            raise IwloraError(f"{origin} names no source; {self.folder} has {listed(self.names)}")
        return tuple(names)

    def folder_of(self, name: str) -> Path:
        """The folder of a source."""
        return layout.source_folder(self.folder, name)

    def source(self, name: str) -> RunDir:
        """A source as the run that it was; ``IwloraError`` if a file of it is not what it was."""
        folder = self.folder_of(name)
        for file, problem in self.files_of(name):
            if problem:
                raise IwloraError(f"{folder / file} {problem}")
        return RunDir.finished(folder)

    def files_of(self, name: str) -> Iterator[tuple[str, str]]:
        """(path in the source's folder, what is wrong with it) of each file; "" for nothing."""
        folder, files = self.folder_of(name), self.record.sources[name]
        present = {path.relative_to(folder).as_posix() for path in files_below(folder)}
        for file in sorted(present | files.keys()):
            if file not in files:
                yield (
                    file,
                    f"does not belong to the pool: {layout.POOL} does not list it; remove it",
                )
            elif file not in present:
                yield file, "is missing; restore it, or compose the pool again"
            elif file_digest(folder / file) != files[file]:
                yield file, "changed since it was composed; restore it, or compose the pool again"
            else:
                yield file, ""


def verify(path: str | Path) -> list[Check]:
    """Whether the files of a pool are what was composed: a check for each.

    Raises ``IwloraError`` for a folder that is no pool.
    """
    try:
        pool = Pool.load(path)
    except IwloraError as error:
        if not layout.is_pool(path):
            raise
        return [Check(layout.POOL, "changed", str(error))]
    checks = [check_document(pool.folder / layout.POOL, layout.POOL, PoolRecord.load)]
    for name in pool.names:
        for file, problem in pool.files_of(name):
            state: State = "intact" if not problem else "changed"
            state = "missing" if problem.startswith("is missing") else state
            where = (pool.folder_of(name) / file).relative_to(pool.folder).as_posix()
            checks.append(Check(where, state, problem))
    return checks


def shared_task(source: RunDir) -> Task:
    """The task of a source, with the kind of outputs that all sources share."""
    task = stored_task(source)
    return Task(
        task.name,
        task.text,
        task.labels,
        task.metrics,
        kind=task.kind.shared_scale(),
        label_columns=task.label_columns,
    )
