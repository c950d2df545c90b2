"""Names of files that stand in the files of a model."""

from __future__ import annotations

from pathlib import Path

from iwlora.inputs.places import entries, inside
from iwlora.inputs.yaml_json import read_mapping


def check_names(folder: Path) -> None:
    """Raise ``IwloraError`` for a name in a model's files that leads to a file outside its folder.

    Indices name the files of the weights. Older versions of transformers also open the files that
    ``tokenizer_config.json`` names; names of places that do not exist are often left over there.
    """
    for index in entries(folder):
        if not index.name.endswith(".index.json"):
            continue
        names = read_mapping(index).get("weight_map")
        for name in set(names.values()) if isinstance(names, dict) else ():
            inside(folder, str(name))
    config = folder / "tokenizer_config.json"
    for field, value in (read_mapping(config) if config.is_file() else {}).items():
        if field.endswith(("_file", "_files")):
            for name in value if isinstance(value, list) else [value]:
                if isinstance(name, str) and (folder / name).exists():
                    inside(folder, name)
