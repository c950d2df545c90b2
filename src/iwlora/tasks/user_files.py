"""The user's own files as a task."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from iwlora.errors import BadRow, BadRowsError, IwloraError, is_of_system, raise_all
from iwlora.inputs.tables.records import notes_on, record_location, record_places, splits_of
from iwlora.tasks.columns.images import notes_on_dark_images
from iwlora.tasks.columns.infer import Columns, infer_columns
from iwlora.tasks.columns.parsed_file import ParsedFile, parse_file
from iwlora.tasks.held_out.stratified_groups import grouped_split
from iwlora.tasks.kinds.cells import looks
from iwlora.tasks.kinds.contract import OTHER_REFERENCES, Dataset, Kind
from iwlora.tasks.spec import TaskSpec
from iwlora.tasks.splits import (
    arrow_type,
    in_memory,
    joined_sources,
    left_out_notes,
    stratified_split,
)
from iwlora.tasks.task import Task

# Without a validation file this fraction of the rows is held out. The seed of the choice is the
# same for all runs, so that their scores are comparable.
HELD_OUT = 0.1


def load_user_files(spec: TaskSpec) -> Task:
    """The task in the user's files.

    Class ids follow ``task.labels``, or the sorted class names, numbers by value. Columns and kind
    that ``spec`` leaves open are inferred; ``notes`` say so. Without a validation file a tenth of
    train is held out, the same rows for every seed.

    Raises:
        BadRowsError: Rows cannot be used, and ``task.on_bad`` is refuse, or no row of a file can.
        IwloraError: Lists what is wrong with the files.
    """
    columns = infer_columns(spec)
    files: list[ParsedFile] = []
    problems: list[str] = []
    bad: list[BadRow] = []
    for split, path in files_of(spec):
        try:
            files.append(parse_file(path, columns, split, bad))
        except IwloraError as error:
            if is_of_system(error):
                raise
            problems.append(str(error))
    _raise_bad(spec, files, bad, problems)
    _check_notation(files)
    notes = tuple(dict.fromkeys([*columns.notes, *_notes_on_scored_files(spec)]))
    sources = [file for file in files if file.split == "train"]
    labels = _class_names(sources, columns, tuple(spec.labels))
    notes += _same_but_for_case(labels)
    files = [file.with_places(file.split == "train" and bool(spec.mix)) for file in files]
    known_from = "task.labels" if spec.labels else spec.title
    files = [_with_class_ids(file, columns.kind, labels, known_from, bad) for file in files]
    _raise_bad(spec, files, bad)
    splits = {file.split: in_memory(file.rows) for file in files if file.split != "train"}
    trained = [in_memory(file.rows) for file in files if file.split == "train"]
    splits = {"train": joined_sources(trained) if spec.mix else trained[0], **splits}
    splits = {name: _without_empty_references(split) for name, split in splits.items()}
    if columns.kind.reads_images:
        notes += tuple(note for split in splits.values() for note in notes_on_dark_images(split))
    notes += left_out_notes(bad, splits)
    if "validation" not in splits:
        whole = splits.pop("train")
        if spec.split == "by-class":
            train, validation = stratified_split(whole, HELD_OUT)
        else:
            train, validation = grouped_split(
                whole, columns.text, columns.kind, HELD_OUT, group=columns.group
            )
        if not len(validation):
            raise IwloraError(_nothing_held_out(spec, columns, len(whole), len(labels)))
        splits = {"train": train, "validation": validation, **splits}
        rows = f"{len(validation)} of the {len(whole)} rows of {spec.title}"
        notes = (*notes, f"validation: {rows}, held out")
    schema = (spec.title, columns.text, labels, columns.kind.metrics_for(labels))
    return Task(
        *schema,
        kind=columns.kind,
        splits=splits,
        notes=notes,
        label_columns=columns.label,
        bad_rows=tuple(bad),
    )


def _raise_bad(
    spec: TaskSpec, files: Iterable[ParsedFile], bad: list[BadRow], problems: Sequence[str] = ()
) -> None:
    """Raise for files that cannot be used, and for bad rows that ``spec`` does not let pass."""
    if spec.on_bad != "refuse":
        empty = [f"{file.path}: none of its rows can be used" for file in files if not file.rows]
        problems = [*problems, *empty]
    if bad and (problems or spec.on_bad == "refuse"):
        raise BadRowsError(bad, problems)
    raise_all(problems)


def _notes_on_scored_files(spec: TaskSpec) -> tuple[str, ...]:
    """What was guessed about what is not trained on: other files, and parts of a folder."""
    scored = [(split, path) for split, path in files_of(spec) if split != "train"]
    return tuple(note for split, path in scored for note in notes_on(path, split, spec.reading))


def _without_empty_references(split: Dataset) -> Dataset:
    """The split without the column of further accepted texts, if no row has one."""
    if OTHER_REFERENCES in split.column_names:
        references = split.data.table[OTHER_REFERENCES].combine_chunks()
        if not len(references.flatten()):
            return split.remove_columns([OTHER_REFERENCES])
    return split


def _nothing_held_out(spec: TaskSpec, columns: Columns, rows: int, classes: int) -> str:
    """Why no row can be held out, and what to do."""
    if spec.split == "by-class":
        return (
            f"{spec.title} has {rows} rows; to hold out a tenth for validation, "
            f"{round(1 / HELD_OUT)} are needed, of one class if there are classes; give "
            "task.validation=FILE"
        )
    give = "give task.validation=FILE"
    content = "images" if columns.kind.reads_images else "texts"
    together = content if columns.group is None else f"{content} or {columns.group}"
    if not classes:
        return (
            f"{spec.title} has {rows} rows, and no two of them differ in {together}; to hold out a "
            f"part for validation, two are needed: {give}"
        )
    if not columns.kind.reads_images:
        give = (
            "if the column holds numbers, give task.kind=regression; if it holds texts to "
            f"generate, task.kind=seq2seq; else {give}"
        )
    return (
        f"{spec.title} has {rows} rows of {classes} classes in column {columns.label[0]!r}, and no "
        f"class has two rows that differ in {together}, so none can be held out for validation: "
        f"{give}"
    )


def files_of(spec: TaskSpec) -> list[tuple[str, str]]:
    """(split, path) of each file; a folder of several splits provides those that the recipe does
    not name."""
    train = str(spec.train)
    paths = {"train": train, "validation": spec.validation, "test": spec.test}
    inside = splits_of(train)
    files = [(split, path or train) for split, path in paths.items() if path or split in inside]
    return [*files, *(("train", path) for path in spec.sources[1:])]


def _same_but_for_case(labels: Sequence[str]) -> tuple[str, ...]:
    """A note on classes that differ in case only."""
    names: dict[str, list[str]] = {}
    for label in labels:
        names.setdefault(label.casefold(), []).append(label)
    same = [", ".join(map(repr, group)) for group in names.values() if len(group) > 1]
    note = f"classes that differ in upper and lower case only: {'; '.join(same)}"
    return (note,) if same else ()


def _check_notation(files: Iterable[ParsedFile]) -> None:
    """Refuse labels that are written in two ways, such as with and without a percent sign."""
    first: dict[str, str] = {}
    for file in files:
        for notation, number in file.notations.items():
            first.setdefault(notation, record_location(file.path, number, file.split))
    if len(first) > 1:
        ways = " and ".join(
            f"{'with' if notation else 'without'} a percent sign ({location})"
            for notation, location in first.items()
        )
        raise IwloraError(f"the labels are written {ways}; 80% is 0.8: write them in one way")


def _class_names(
    sources: Sequence[ParsedFile], columns: Columns, given: tuple[str, ...]
) -> tuple[str, ...]:
    """The class names: as given, or sorted, numbers by value, or the label columns in order."""
    kind = columns.kind
    if given and (not kind.has_classes or len(columns.label) > 1):
        reason = "has no classes" if not kind.has_classes else "has a column for each class"
        raise IwloraError(f"task.labels names classes, and a task of kind {kind.name} {reason}")
    if not kind.has_classes:
        return ()
    if len(columns.label) > 1:
        return columns.label
    if given:
        if len(given) < kind.min_classes:
            raise IwloraError(
                f"task.labels names one class only ({given[0]!r}); at least {kind.min_classes} are "
                "needed"
            )
        return given
    names = {
        name
        for file in sources
        for batch in file.rows.to_batches()
        for label in batch.column("label").to_pylist()
        for name in kind.class_names(label)
    }
    where = " and ".join(file.path for file in sources)
    if len(names) < kind.min_classes:
        raise IwloraError(
            f"{where}: column {columns.label[0]!r} holds one class only ({names.pop()!r}); "
            f"at least {kind.min_classes} are needed"
        )
    _check_distinct(names, f"{where}: column {columns.label[0]!r}")
    if all(re.fullmatch(r"[+-]?\d+", name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _check_distinct(names: Iterable[str], column: str) -> None:
    """Refuse class names that a reader cannot tell apart: one class, written in two ways."""
    written: dict[str, list[str]] = {}
    for name in sorted(names):
        written.setdefault(looks(name), []).append(name)
    problems = [
        f"{column} holds classes that look the same: {', '.join(map(ascii, same))}; write them in "
        "one way"
        for same in written.values()
        if len(same) > 1
    ]
    raise_all(problems)


def _with_class_ids(
    file: ParsedFile, kind: Kind, labels: Sequence[str], known_from: str, bad: list[BadRow]
) -> ParsedFile:
    """The file with class ids for names; rows with another class are added to ``bad`` and left
    out."""
    import pyarrow

    if not kind.has_classes:
        return file
    ids = {name: number for number, name in enumerate(labels)}
    place, accepted = record_places(file.path, file.split), ", ".join(labels)
    chunks, known, row = [], [], 0
    for batch in file.rows.to_batches():
        encoded = []
        for label in batch.column("label").to_pylist():
            unknown = [name for name in kind.class_names(label) if name not in ids]
            for name in unknown:
                problem = f"label {name!r} is not in {known_from} (accepted: {accepted})"
                where = place(file.line_numbers[row])
                bad.append(BadRow(file.split, file.path, where, problem))
            encoded.append(None if unknown else kind.encode_label(label, ids))
            known.append(not unknown)
            row += 1
        chunks.append(pyarrow.array(encoded, arrow_type(kind.column_types[2])))
    index = file.rows.column_names.index("label")
    label_type = arrow_type(kind.column_types[2])
    rows = file.rows.set_column(index, "label", pyarrow.chunked_array(chunks, label_type))
    return replace(file, rows=rows if all(known) else rows.filter(pyarrow.array(known)))
