"""What is computed for rows, kept in a file that all runs share and that only grows.

``rows.bin`` has the values, one behind the other, and ``index.bin`` a record of fixed size for
each row: its key, where it is, and checksums. A process adds rows while it holds the lock. Whoever
finds a row that does not fit its checksum computes it again.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from iwlora.errors import CannotWrite, os_error_text
from iwlora.inputs.mapped_files import mapped_bytes
from iwlora.inputs.places import files_below
from iwlora.results import layout
from iwlora.results.locks import exclusive, exclusive_with_children
from iwlora.results.writing import free_bytes, write_at
from iwlora.training.device import warn_once

logger = logging.getLogger("iwlora")

MOST_BYTES = 16 * 2**30
"""Of the rows that are kept; further rows are computed each time."""
_SHARE_OF_FREE_DISK = 0.5
KEY_BYTES = 16
_RECORD = np.dtype(
    [("key", f"V{KEY_BYTES}"), ("start", "<u8"), ("tokens", "<u4"), ("sum", "<u4"), ("own", "<u4")]
)
_CHECKED = _RECORD.itemsize - 4  # all but the record's own checksum


class StoredRows:
    """Activations of rows in a folder, each of shape (tokens, width), or other values of theirs.

    Args:
        folder: Where they are kept; created with the first row.
        width: The size of an activation.
        dtype: Its type.
        most_bytes: The most that the folders beside it and this one keep together; never more than
            half of what the disk had free without this one.
        content: What is kept, for messages.
    """

    def __init__(
        self,
        folder: Path,
        width: int,
        dtype: torch.dtype,
        most_bytes: int = MOST_BYTES,
        content: str = "frozen layers",
    ) -> None:
        self._content = content
        self.folder, self._width, self._dtype = folder, width, dtype
        self._token_bytes = width * dtype.itemsize
        self._rows, self._index = folder / "rows.bin", folder / "index.bin"
        files = {file: file.stat().st_size for file in files_below(folder.parent)}
        own = sum(size for file, size in files.items() if file.parent == folder)
        self._most = max(0, most_bytes - (sum(files.values()) - own))
        if (free := free_bytes(folder)) is not None:
            self._most = min(self._most, int((free + own) * _SHARE_OF_FREE_DISK))
        self._records: dict[bytes, tuple[int, int, int]] = {}
        self._known_records = self._end = 0
        self._writable = True
        # Checksums begin with it, so that what another model computed does not fit.
        self._seed = zlib.crc32(folder.name.encode())

    @property
    def stored_bytes(self) -> int:
        """The bytes of the rows that are known to be kept."""
        return self._end

    def read(self, keys: Sequence[bytes]) -> list[Tensor | None]:
        """The activations of each row on the CPU, or None for a row that is not kept."""
        if any(key not in self._records for key in keys):
            self._refresh()
        if not any(key in self._records for key in keys):
            return [None] * len(keys)
        mapped = mapped_bytes(self._rows) if self._rows.is_file() else np.empty(0, np.uint8)
        return [self._row(mapped, key) for key in keys]

    def _row(self, mapped: npt.NDArray[np.uint8], key: bytes) -> Tensor | None:
        if key not in self._records:
            return None
        start, tokens, checksum = self._records[key]
        content = bytearray(mapped[start : start + tokens * self._token_bytes])
        if len(content) != tokens * self._token_bytes or self._sum(key, content) != checksum:
            self._warn_of_damage(self._rows)
            del self._records[key]
            return None
        values = torch.frombuffer(content, dtype=self._dtype)
        return values.view(tokens, self._width)

    @contextmanager
    def in_turn(self, draw: int) -> Iterator[None]:
        """Inside the block no other run of the same draw computes rows, as far as locks work here.

        Runs of a comparison that start together meet the same rows at the same time: one computes
        them, and the others, which wait here, read them.
        """
        with ExitStack() as stack:
            if self._writable:
                with suppress(OSError):  # :meth:`add` says so
                    self.folder.mkdir(parents=True, exist_ok=True)
                    lock = self.folder / f"{layout.LOCK}-{draw}"
                    stack.enter_context(exclusive_with_children(lock, lambda: None))
            yield

    def add(self, rows: Mapping[bytes, Tensor]) -> None:
        """Keep rows, as far as there is room and no other process is adding some just now."""
        if not self._writable:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with exclusive(self.folder / layout.LOCK) as held:
                if held:
                    self._append(rows)
        except (CannotWrite, OSError) as error:
            reason = os_error_text(error) if isinstance(error, OSError) else str(error)
            self._stop_writing(f"{self._content} are computed each time from now on: {reason}")

    def _append(self, rows: Mapping[bytes, Tensor]) -> None:
        """Write the activations, then the records that make them valid."""
        self._refresh()
        contents: list[bytes] = []
        records, end = np.empty(len(rows), _RECORD), self._end
        for key, values in rows.items():
            content = values.contiguous().view(torch.uint8).numpy().tobytes()
            if key in self._records:
                continue
            if end + len(content) > self._most:
                self._stop_writing(
                    f"{self.folder} has reached its limit of {self._most / 1e9:.1f} GB, which "
                    f"other files in {self.folder.parent} and the free disk leave: "
                    f"{self._content} are computed each time for further rows"
                )
                break
            record = records[len(contents) : len(contents) + 1]
            record["key"], record["start"] = np.void(key), end
            record["tokens"], record["sum"] = len(values), self._sum(key, content)
            record["own"] = zlib.crc32(record.tobytes()[:_CHECKED], self._seed)
            contents.append(content)
            end += len(content)
        if not contents:
            return
        write_at(self._rows, self._end, b"".join(contents))
        added = records[: len(contents)]
        write_at(self._index, self._known_records * _RECORD.itemsize, added.tobytes())
        self._refresh()

    def _refresh(self) -> None:
        """Read the records that were added since."""
        whole = self._index.stat().st_size // _RECORD.itemsize if self._index.is_file() else 0
        if whole <= self._known_records:
            return
        size = _RECORD.itemsize
        new = mapped_bytes(self._index)[self._known_records * size : whole * size]
        for record in np.frombuffer(new.tobytes(), _RECORD):
            if zlib.crc32(record.tobytes()[:_CHECKED], self._seed) != record["own"]:
                self._warn_of_damage(self._index)
                continue
            start, tokens = int(record["start"]), int(record["tokens"])
            self._records[record["key"].tobytes()] = start, tokens, int(record["sum"])
            self._end = max(self._end, start + tokens * self._token_bytes)
        self._known_records = whole

    def _sum(self, key: bytes, content: bytes | bytearray) -> int:
        return zlib.crc32(content, zlib.crc32(key, self._seed))

    def _warn_of_damage(self, file: Path) -> None:
        warn_once(
            f"{file} is damaged, or was changed: what does not fit its checksum is computed again; "
            f"remove {self.folder} if this goes on"
        )

    def _stop_writing(self, reason: str) -> None:
        self._writable = False
        logger.warning(reason)


def describe_kept(folder: Path) -> tuple[str, int]:
    """(a sentence on what a run or a comparison keeps for further runs, its bytes); "" for none.

    Args:
        folder: of the run or the comparison.
    """
    places = [folder / name for name in (layout.FROZEN_LAYERS, layout.DECODED_IMAGES)]
    sizes = {place: sum(f.stat().st_size for f in files_below(place)) for place in places}
    text = "; ".join(
        f"{place} has {size / 1e6:,.1f} MB for further runs; remove it if there are none"
        for place, size in sizes.items()
        if size
    )
    return text, sum(sizes.values())
