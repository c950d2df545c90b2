"""Files with arrays: safetensors, NumPy's, PyTorch's, and the index of a model in parts."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from random import Random
from typing import Any

from hostile.mutations.values import CANARY, ESCAPES, MARKUP, NUMBERS, PATHS, value

_DTYPES = (
    "F64",
    "F32",
    "F16",
    "BF16",
    "I64",
    "I32",
    "I16",
    "I8",
    "U8",
    "BOOL",
    "F8_E4M3",
    "C64",
    "X",
)


def header(file: Path, random: Random, _outside: Path) -> None:
    """Change the header of a safetensors file: types, shapes, offsets, names, metadata, length."""
    whole = file.read_bytes()
    try:
        size = struct.unpack("<Q", whole[:8])[0]
        entries = json.loads(whole[8 : 8 + size])
        name = random.choice([name for name in entries if name != "__metadata__"])
        entry = entries[name]
        entry["shape"], entry["data_offsets"]  # as a header has them
    except (ValueError, KeyError, TypeError, IndexError, struct.error, RecursionError):
        return
    how = random.randrange(12)
    if how == 0:
        entry["dtype"] = random.choice(_DTYPES)
    elif how == 1:
        entry["shape"] = random.choice(
            ([], [0], [1] * 64, [-1], [2**63], [2**32, 2**32], "x", None)
        )
    elif how == 2:
        entry["shape"] = [*entry["shape"][::-1]]
    elif how == 3:
        entry["data_offsets"] = random.choice(
            ([0, 0], [0, 2**63], [-4, 0], [8, 4], [0, len(whole)], [0], {}, [0.5, 1.5], [2**64, 0])
        )
    elif how == 4:
        entries[random.choice((*PATHS, *ESCAPES[:-8], *MARKUP))] = entries.pop(name)
    elif how == 5:
        entries["__metadata__"] = random.choice(
            (None, [], {"a": 1}, {"format": "pt", "x": value(random)})
        )
    elif how == 6:
        del entries[name]
    elif how == 7:
        entries["more." + name] = dict(entry)
    elif how == 8:
        entry[random.choice(("extra", "dtype", "shape"))] = value(random)
    elif how == 9:  # the shape and the type fit each other, and not the model
        flat = entry["data_offsets"][1] - entry["data_offsets"][0]
        entry["dtype"], entry["shape"] = random.choice(
            (("I8", [flat]), ("BOOL", [flat]), ("U8", [1, flat]))
        )
    else:  # the header stays; the numbers are not finite, or enormous
        word = random.choice(
            (b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff\xff\x7f\x7f", b"\1\0\0\0")
        )
        start = 8 + size + entry["data_offsets"][0]
        file.write_bytes(whole[:start] + word + whole[start + 4 :])
        return
    try:
        text = json.dumps(entries).encode("utf-8", "replace")
    except (ValueError, RecursionError):
        return
    length = (
        len(text) if random.random() < 0.9 else random.choice((0, 2**20, 2**31, 2**63, 2**64 - 1))
    )
    file.write_bytes(struct.pack("<Q", length) + text + whole[8 + size :])


def in_parts(file: Path, random: Random, outside: Path) -> None:
    """Next to a safetensors file, an index that says its tensors are in other files."""
    names = ["bert.embeddings.word_embeddings.weight", "classifier.weight", "x"]
    elsewhere = random.choice((*PATHS, "{outside}/model/model.safetensors", "part.safetensors"))
    elsewhere = elsewhere.replace("{outside}", str(outside))
    index: Any = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, elsewhere)}
    if random.random() < 0.3:
        index[random.choice(("metadata", "weight_map"))] = value(random)
    try:
        text = json.dumps(index)
    except (ValueError, RecursionError):
        return
    (file.parent / (file.name + ".index.json")).write_text(text, encoding="utf-8")
    if random.random() < 0.7:
        file.unlink()


class Payload:
    """Unpickling it creates a file, as any program could."""

    def __reduce__(self) -> Any:
        return open, (CANARY, "w")


class Shell:
    """Unpickling it starts a process."""

    def __reduce__(self) -> Any:
        import os

        return os.system, (f"touch {CANARY}",)


def pickled(file: Path, random: Random, _outside: Path) -> None:
    """A pickle whose loading runs code, plain or as PyTorch, NumPy and zip keep it."""
    bomb = random.choice((Payload, Shell))()
    content = pickle.dumps(bomb, protocol=random.choice((0, 2, 4)))
    how = random.randrange(3)
    if how == 1:
        content = _zip({"archive/data.pkl": content, "archive/version": b"3\n"})
    elif how == 2:
        text = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + "\n"
        content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + content
    names = (file.name, "pytorch_model.bin", "adapter_model.bin", "training_args.bin", "scaler.pt")
    name = random.choice((file.name, file.name, *names))
    if name != file.name:
        file.unlink()
    (file.parent / name).write_bytes(content)


def array(file: Path, random: Random, _outside: Path) -> None:
    """An ``.npz`` of other arrays: objects, enormous shapes, names that lead out, bombs."""
    shape, kind = random.choice(
        (
            ("(1,)", "|O"),
            ("(10000000000,)", "<u8"),
            ("(-1,)", "<u8"),
            ("()", "<f4"),
            ("(2, 2)", "|S5"),
        )
    )
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()
    names = _names(file) or ["a.npy"]
    tail = random.choice((b"", pickle.dumps(Payload()), b"\0" * 64, b"\0" * 30_000_000))
    members = dict.fromkeys(names, npy + tail)
    if random.random() < 0.3:
        members[random.choice(("../../out.npy", "/etc/x.npy", "a\n.npy", "\x1b[31m.npy"))] = npy
    file.write_bytes(_zip(members))


def _names(file: Path) -> list[str]:
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.namelist()[:4]
    except (OSError, zipfile.BadZipFile):
        return []


def _zip(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def numbers_in_state(file: Path, random: Random, _outside: Path) -> None:
    """A PyTorch file of plain tensors and numbers that are not those that belong there."""
    import torch

    tensors = (torch.zeros(3), torch.tensor(float("nan")), torch.ones(1, dtype=torch.int8), 1, None)
    names = ("state", "param_groups", "cpu", "python", "numpy", "last_epoch", "x")
    state: dict[str, object] = {
        name: random.choice((*tensors, {}, [], random.choice(NUMBERS))) for name in names
    }
    torch.save(random.choice((state, [state], torch.zeros(2), {})), file)
