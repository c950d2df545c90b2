"""The files of a pretrained model, by what they hold: weights, configuration, processors."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from iwlora.image_tokens import codebook
from iwlora.inputs.models.hub import cached_folder
from iwlora.inputs.places import entries
from iwlora.training.model.backbone import resolve_model_path

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")
_SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
_CONFIGURATION = ("config.json", "generation_config.json", "*.safetensors.index.json", "*.py")
_TOKENIZER = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template*"),
    *("vocab*", "merges*", "spiece*", "sentencepiece*", "*.model", "*.tiktoken", "*.spm"),
    *("*.bpe", "bpe.codes", "dict.txt", "additional_chat_templates/*"),
)
_IMAGE_PROCESSOR = ("preprocessor_config.json",)
_CODES = (codebook.FILE, f"{codebook.NETWORK}/*")


def model_folder(model: str) -> Path | None:
    """The folder with the files of a model, in the hub's cache for an id on the hub.

    None for a model that is not on this machine.
    """
    folder = Path(resolve_model_path(model))
    if folder.is_dir():
        return folder
    return cached_folder(model)


def revision(folder: Path) -> str | None:
    """The revision of a model in the hub's cache, which is the name of its folder there.

    >>> revision(Path("hub/models--google--t5/snapshots/a1b2")), revision(Path("models/mine"))
    ('a1b2', None)
    """
    return folder.name if folder.parent.name == "snapshots" else None


def model_files(folder: Path) -> dict[str, list[Path]]:
    """{weights, configuration, tokenizer, image processor, codes: the files of a model}.

    Of the model's weights in several formats, safetensors is the one that is loaded.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("config.json", "model.safetensors", "pytorch_model.bin", "README.md"):
    ...     (folder / name).touch()
    >>> [path.name for path in model_files(folder)["weights"]]
    ['model.safetensors']
    """
    is_safetensors = any((folder / name).is_file() for name in _SAFETENSORS)
    return {
        "weights": [
            path
            for path in _matching(folder, _WEIGHTS[:1] if is_safetensors else _WEIGHTS)
            if path.name not in _CODES
        ],
        "configuration": _matching(folder, _CONFIGURATION),
        "tokenizer": _matching(folder, _TOKENIZER),
        "image processor": _matching(folder, _IMAGE_PROCESSOR),
        "codes": _matching(folder, _CODES),
    }


def processor_files(folder: Path, with_code: bool) -> list[Path]:
    """The files of a tokenizer, an image processor or a codebook in a folder; with code only if
    trusted."""
    code = _matching(folder, ["*.py"])
    known = (*_TOKENIZER, *_IMAGE_PROCESSOR, *_CODES)
    files = [path for path in _matching(folder, known) if path not in code]
    return [*files, *code] if with_code else files


def _matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    matches = set()
    for pattern in patterns:
        place, _, name = pattern.rpartition("/")
        matches |= {path for path in entries(folder / place) if fnmatchcase(path.name, name)}
    return sorted(path for path in matches if path.is_file())
