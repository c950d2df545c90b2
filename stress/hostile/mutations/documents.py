"""Fields of JSON and YAML documents, and the dialects in which such texts are written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import yaml

from hostile.mutations.values import PATHS, key, scalar, value

_YAML = (".yaml", ".yml")


def fields(file: Path, random: Random, outside: Path) -> None:
    """Change one to three fields of a document: other types, missing, renamed, unknown."""
    document = _read(file)
    if document is None:
        return
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        document = _changed(document, random)
    _write(file, document, outside)


def paths(file: Path, random: Random, outside: Path) -> None:
    """Put a path, an address or the name of a module where a document has a text or null."""
    document = _read(file)
    places = [
        (holder, name)
        for holder, name in _places(document)
        if isinstance(holder[name], str) or holder[name] is None
    ]
    if places:
        holder, name = random.choice(places)
        holder[name] = random.choice(PATHS)
        _write(file, document, outside)


def dialect(file: Path, random: Random, _outside: Path) -> None:
    """Write a document as its format allows, or nearly: comments, tags, doubled fields, aliases."""
    text = file.read_text(encoding="utf-8", errors="surrogateescape")
    edits = _yaml_dialects(text) if file.suffix in _YAML else _json_dialects(text, random)
    changed = random.choice(edits)
    file.write_bytes(changed.encode("utf-8", "surrogateescape"))


def _yaml_dialects(text: str) -> list[str]:
    first = text.partition(":")[0]
    return [
        f"x: &x [1, 2]\n{text}y: *x\n",
        f"{text}<<: {{a: 1}}\n",
        f"{text}<<: [{{a: 1}}, *nothing]\n",
        f"&loop\n{text}self: *loop\n",
        f"{text}{first}: again\n",
        f"--- \n{text}---\n{text}",
        f"%YAML 9.9\n---\n{text}",
        f"%TAG ! tag:evil.test,2000:\n---\n{text}",
        f"{text}x: !!python/object/apply:os.system ['touch canary']\n",
        f"{text}x: !!python/object/new:pathlib.Path [canary]\n",
        f"{text}x: !!python/module:canary_module ''\n",
        f"{text}x: !!timestamp 2001-99-99\n",
        f"{text}x: !!binary '*'\n",
        f"{text}x: !!set {{a, b}}\n",
        f"{text}x: !!omap [a: 1]\n",
        f"{text}x: !!int ''\n",
        f"{text}x: !!float abc\n",
        f"{text}? [a, b]\n: c\n",
        f"{text}? {{a: b}}\n: c\n",
        f"{text}1: 2\n",
        f"{text}null: 2\n",
        f"{text}1.5: 2\ntrue: 3\n",
        f"{text}\tx: 1\n",
        f"{text}x: |\n {'long ' * 20_000}\n",
        f'{text}x: "\\ud800\\0\\x1b[31m"\n',
        f"{text}x: 2001-12-14t21:59:43.10-05:00\n",
        f"{text}x: 0b101\ny: 1__0\nz: 190:20:30\n",
        f"{text}x: {'9' * 5000}\ny: 1e{'9' * 400}\n",
        f"{text}... \ntrailing",
        text.replace("\n", "\x85"),
        text.replace(": ", ":\u00a0"),
        "!!map " + text,
        "- " + text.replace("\n", "\n  "),
        "\ufeff" + text,
        "",
        "---\n",
        "just a text\n",
    ]


def _json_dialects(text: str, random: Random) -> list[str]:
    body = text.strip()
    first = body[1:].partition(":")[0].strip() or '"a"'
    opened = body[: body.find("{") + 1] or "{"
    rest = body[len(opened) :]
    number = random.choice(("1e400", "-0", "01", "1.", "NaN", "-Infinity", "9" * 5000, "1e-999"))
    return [
        f"{opened}{first}: null,{rest}",
        f"{opened}{first}: {number},{rest}",
        f'{opened}"new": {number},{rest}',
        f'{opened}"__proto__": {{}}, "\\ud800": "\\udc00",{rest}',
        f"// comment\n{body}",
        f"{opened}/* comment */{rest}",
        body[:-1] + ",}",
        body.replace('"', "'"),
        body.replace('"', '"\\u0000', 1),
        body + body,
        body + "\n]",
        "[" + body + "]",
        json.dumps(body),
        "[" * 100_000,
        '{"a":' * 50_000 + "1" + "}" * 50_000,
        "[" * 190 + body + "]" * 190,
        "\ufeff" + body,
        "\x1e" + body,
        body.replace(":", ":\x0c", 1),
        "{}",
        "[]",
        "null",
        "0",
        '""',
        "true",
    ]


def mapping(file: Path) -> dict[str, Any]:
    """The mapping in a document; an empty one if an earlier change has left something else."""
    document = _read(file)
    return document if isinstance(document, dict) else {}


def _read(file: Path) -> Any:
    text = file.read_bytes().decode("utf-8", "replace")
    try:
        document = yaml.safe_load(text) if file.suffix in _YAML else json.loads(text)
    except (ValueError, RecursionError, yaml.YAMLError):
        return None  # an earlier change has left no document
    return document if _is_tree(document) else None  # or one that unfolds, here too


def _write(file: Path, document: Any, outside: Path) -> None:
    try:
        if file.suffix in _YAML:
            text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        else:
            text = json.dumps(document, ensure_ascii=False)
    except (RecursionError, ValueError):  # Python does not write integers of thousands of digits
        return
    text = text.replace("{outside}", str(outside))
    file.write_bytes(text.encode("utf-8", "surrogatepass"))


def _is_tree(document: Any) -> bool:
    """Whether no mapping or list stands at two places, as behind the aliases of YAML."""
    waiting, seen = [document], set()
    while waiting:
        holder = waiting.pop()
        if isinstance(holder, (dict, list)):
            if id(holder) in seen:
                return False
            seen.add(id(holder))
            waiting += holder.values() if isinstance(holder, dict) else holder
    return True


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """(a mapping or list, a key or position in it) of every value, at any depth."""
    waiting = [document]
    while waiting:
        holder = waiting.pop()
        if isinstance(holder, dict):
            names: list[Any] = list(holder)
        elif isinstance(holder, list):
            names = list(range(min(len(holder), 20)))
        else:
            continue
        for name in names:
            yield holder, name
            waiting.append(holder[name])


def _changed(document: Any, random: Random) -> Any:
    places = list(_places(document))
    how = random.randrange(10)
    if not places or how == 0:
        return random.choice((value(random), [document], {"a": document}))
    holder, name = random.choice(places)
    if how <= 4:
        holder[name] = value(random)
    elif how == 5:
        del holder[name]
    elif how == 6:
        holder[name] = random.choice((str(holder[name]), [holder[name]], {"a": holder[name]}))
    elif how == 7:
        other, second = random.choice(places)
        holder[name] = json.loads(json.dumps(other[second]))
    elif isinstance(holder, dict):
        holder[key(random)] = holder.pop(name) if how == 8 else value(random)
    else:
        holder.extend([scalar(random)] * random.choice((1, 3, 10_000)))
    return document
