"""``adapter_config.json`` of PEFT: from a file, only what iwlora itself writes is accepted.

A configuration of PEFT can name models, packages and files, which PEFT would read, import or ask
about. So PEFT never reads the file: it gets a configuration made from the checked fields.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from iwlora.errors import IwloraError, raise_all, short_repr
from iwlora.inputs.yaml_json import read_mapping, validation_errors
from iwlora.methods import METHODS

_LARGEST = 2**16  # rank, number of tokens or of names; more than any matrix, text or model has
_MOST_OF_HEAD = 100  # modules that are saved whole; the time of PEFT is ~ their square
_MOST_REPEATS = 3  # of a pattern: matching one name takes time ~ its length ** repeats

# Fields that some versions of PEFT have with these values, and no others.
_UNUSED: Mapping[str, Any] = {"qalora_group_size": 16, "megatron_core": "megatron.core"}


def _is_quick(pattern: str) -> str:
    """A regular expression that no name can keep busy: no repeated groups, few repeats."""
    plain = re.sub(r"\\.", "", pattern)
    if re.search(r"[)*+?}][*+{]", plain) or len(re.findall(r"[*+{]", plain)) > _MOST_REPEATS:
        raise ValueError(
            f"accepted are names, and patterns with at most {_MOST_REPEATS} repeats (*, +) and no "
            "repeated groups"
        )
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"it is no regular expression ({error})") from None
    return pattern


Pattern = Annotated[str, Field(max_length=1_000_000), AfterValidator(_is_quick)]
Name = Annotated[str, Field(pattern=r"^[\w.-]+$")]
Names = Annotated[list[Name], Field(max_length=_LARGEST)]  # PEFT compares each with each module
Size = Annotated[int, Field(ge=0, le=_LARGEST)]
_FEW = Field(max_length=4096)  # PEFT matches each pattern with each module
Alpha = Annotated[float, Field(allow_inf_nan=False)]


class _AutoMapping(BaseModel):
    """The class of the model below the adapter, where PEFT has no name for its task."""

    model_config = ConfigDict(strict=True, extra="forbid")

    base_model_class: Annotated[str, Field(pattern=r"^\w+$")]
    parent_library: Annotated[str, Field(pattern=r"^transformers(_modules)?\.[\w.]+$")]


class _Settings(BaseModel):
    """Fields of all types; the others are ``model_extra``."""

    model_config = ConfigDict(strict=True, extra="allow")

    peft_type: str
    task_type: str | None = None
    peft_version: str | None = None
    base_model_name_or_path: str | None = None
    auto_mapping: _AutoMapping | None = None
    inference_mode: bool = True
    modules_to_save: Annotated[list[Name], Field(max_length=_MOST_OF_HEAD)] | None = None


class _Lora(_Settings):
    r: Annotated[Size, Field(ge=1)] = 8
    lora_alpha: Alpha = 8
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    rank_pattern: Annotated[dict[Pattern, Size], _FEW] | None = None
    alpha_pattern: Annotated[dict[Pattern, Alpha], _FEW] | None = None
    target_modules: Names | Pattern | None = None
    exclude_modules: Names | Pattern | None = None
    target_parameters: Names | None = None
    layers_to_transform: list[Size] | Size | None = None
    layers_pattern: Names | Name | None = None
    trainable_token_indices: dict[Name, list[int]] | list[int] | None = None
    bias: Literal["none", "all", "lora_only"] = "none"
    lora_bias: bool = False
    fan_in_fan_out: bool = False
    use_dora: bool = False
    use_rslora: bool = False
    # The initial values that PEFT computes from the weights alone; others read files.
    init_lora_weights: (
        bool | Annotated[str, Field(pattern=r"^(gaussian|orthogonal|olora|pissa(_niter_\d\d?)?)$")]
    ) = True


class _Prefix(_Settings):
    num_virtual_tokens: Annotated[Size, Field(ge=1)]
    token_dim: Size | None = None
    num_transformer_submodules: Size | None = None
    num_attention_heads: Size | None = None
    num_layers: Size | None = None
    encoder_hidden_size: Size | None = None
    prefix_projection: bool = False


_WRITTEN: Mapping[str, type[_Settings]] = {"LORA": _Lora, "PREFIX_TUNING": _Prefix}


def checked_settings(file: Path, determined: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The fields of an ``adapter_config.json``, all of them harmless.

    Args:
        file: the file.
        determined: {field: its value} that the recipe of the run determines.

    Raises:
        IwloraError: a type, field or value that iwlora does not write, or that the recipe
            contradicts; it says which.
    """
    settings = read_mapping(file)
    kind = settings.get("peft_type")
    # Methods of other packages are imported only where the type is none of iwlora's.
    declared = {} if kind in [*_WRITTEN] else _declared_fields()
    if kind not in [*_WRITTEN, *declared]:
        raise IwloraError(
            f"{file}: peft_type={short_repr(kind)} was given; accepted are "
            f"{', '.join([*_WRITTEN, *declared])}, which iwlora writes"
        )
    with validation_errors(file):
        checked = _WRITTEN.get(kind, _Settings).model_validate(settings)
    own, defaults = declared.get(kind, ()), {**_UNUSED, **_defaults(kind)}
    raise_all(
        [
            f"{file}: {name}={short_repr(value)} was given, and iwlora does not write it; if you "
            "trust the adapter, load it with peft.PeftModel.from_pretrained"
            for name, value in sorted((checked.model_extra or {}).items())
            if name not in own and value and defaults.get(name) != value
        ]
        + [
            f"{file}: {name}={short_repr(settings.get(name))} was given, and the recipe of the run "
            f"determines {short_repr(value)}"
            for name, value in (determined or {}).items()
            if settings.get(name) != value
        ]
    )
    return settings


def _declared_fields() -> dict[str, Collection[str]]:
    """{type of PEFT: its fields} that methods of other packages write."""
    return {
        kind: names for method in METHODS.values() for kind, names in method.peft_fields.items()
    }


def peft_config(settings: Mapping[str, Any]) -> Any:
    """PEFT's configuration object for checked settings, those left out that it does not have."""
    made = _peft_class(settings["peft_type"])
    known = {field.name for field in fields(made) if field.init}
    return made(**{name: value for name, value in settings.items() if name in known})


def _defaults(kind: str) -> dict[str, Any]:
    """{field: default} of a type of the installed PEFT."""
    return {
        field.name: field.default
        for field in fields(_peft_class(kind))
        if field.default is not MISSING
    }


def _peft_class(kind: str) -> Any:
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftType

    return PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)]
