"""The complete description of one run: model, task, method, budget and training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_validator,
)

from iwlora.errors import IwloraError, short_repr, unknown
from iwlora.inputs.limits import Number, compile_pattern
from iwlora.inputs.yaml_json import to_yaml
from iwlora.methods import METHODS, Method
from iwlora.methods.budget import parse_budget
from iwlora.results.formats import FIELD, stamped, unstamped
from iwlora.tasks.spec import TaskSpec
from iwlora.training.overrides import override, read_yaml, validate
from iwlora.training.train_settings import TrainSettings

FORMER_DEFAULTS: Mapping[int, Mapping[str, Mapping[str, Any]]] = {
    2: {"task": {"split": "by-class", "former_kind_defaults": True}},
}
"""{version of the recipe's format: {part: {field: its default up to that version}}}."""
LAST_FORMAT_WITHOUT_EXPERTS = 2
"""Up to this version of the recipe's format, ``targets: all`` meant all linear layers."""

_SHOWN = 5  # differing settings that a message names
_LARGE = 10**12  # parameters assumed to check a budget before the model is known: any % is > 0


class Recipe(BaseModel):
    """The checked description of a run, made by :func:`load` or :func:`build`.

    Example:
        >>> recipe = build({"model": "builtin/minilm", "task": {"name": "builtin/entailment"},
        ...                 "method": {"name": "lora", "rank": 4}})
        >>> recipe.method.size, recipe.train.lr
        (4, 0.0002)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str, Field(min_length=1)]
    """The pretrained model: builtin/minilm, builtin/stroke-codes (image codes), an id on the hub,
    or a folder."""
    task: TaskSpec
    method: SerializeAsAny[Method]
    budget: str | Number | None = None
    """The number of trained parameters without the head, such as 300K, 1.33M, or 0.5% of the
    backbone's; it sets the size of the method (such as the rank). null: the method's own options
    set it."""
    targets: str | list[str] = "all"
    """The matrices to adapt: all; all-linear, without experts; or a list of kinds (query, ffn_up,
    ...), of names, and of ends of names (q_proj, mlp.up_proj); or a regular expression for whole
    names, as in PEFT. A list may have all beside kinds of convolutions, which all leaves out."""
    exclude: str | list[str] = []
    """The matrices to leave out, in the same forms."""
    modules_to_save: list[Annotated[str, Field(min_length=1)]] = []
    """Modules of the model, by their paths or the ends of paths, that train as a whole and are
    saved beside the adapter. They are no targets and count as ``head_parameters``."""
    add_tokens: list[Annotated[str, Field(min_length=1)]] = []
    """New tokens for the tokenizer, whose embeddings are added to the model, trained and saved."""
    trainable_token_indices: list[Annotated[int, Field(ge=0, strict=True)]] = []
    """Ids of tokens whose embeddings are trained and saved."""
    quantize: Literal["4bit"] | None = None
    """How bitsandbytes quantizes the frozen matrices of the blocks: with LoRA this is QLoRA."""
    train: TrainSettings = TrainSettings()
    trust_remote_code: Annotated[bool, Field(strict=True)] = False
    """Run Python code that comes with the model, with all permissions of the user."""
    label: Annotated[str, Field(pattern=r"^\w[\w.+=-]*$")] | None = None
    """The run's name in tables; null: the name of the method."""

    @field_validator("budget", mode="before")
    @classmethod
    def _check_budget(cls, value: Any) -> Any:
        if value is not None:
            parse_budget(value, backbone=_LARGE)
        return value

    @field_validator("targets", "exclude", mode="before")
    @classmethod
    def _check_targets(cls, value: Any, info: ValidationInfo) -> Any:
        is_targets = info.field_name == "targets"
        is_list = isinstance(value, list) and all(isinstance(name, str) for name in value)
        if not (isinstance(value, str) or is_list) or (is_targets and not value):
            raise ValueError(
                f"accepted: {'all, or ' if is_targets else ''}a list of kinds of matrices, of "
                "their names or of the ends of names, or a regular expression"
            )
        if isinstance(value, str):
            compile_pattern(value)
            return value
        return sorted(set(value))  # the order of names means nothing

    @model_validator(mode="after")
    def _check_early_stopping(self) -> Recipe:
        if self.train.early_stopping and not self.task.selection:
            raise ValueError(
                f"train.early_stopping={self.train.early_stopping} was given without "
                "task.selection, and the reported rows must not decide when to stop; give "
                "task.selection=0.1"
            )
        return self

    @model_validator(mode="after")
    def _check_sampler(self) -> Recipe:
        if self.task.weights and self.train.sampler == "balanced":
            raise ValueError(
                "task.mix has weights and train.sampler=balanced was given: both say how often a "
                "row is drawn; remove the weights, or take train.sampler=shuffle"
            )
        return self

    @model_validator(mode="after")
    def _check_gradient_checkpointing(self) -> Recipe:
        if self.train.gradient_checkpointing and self.method.not_checkpointable:
            raise ValueError(
                f"train.gradient_checkpointing=true was given, and {self.method.name} cannot train "
                f"with it: {self.method.not_checkpointable}; take false, or lora"
            )
        return self

    @model_validator(mode="after")
    def _check_frozen_layers(self) -> Recipe:
        setting, train = self.train.cache_frozen, self.train
        reasons = {
            "train.gradient_checkpointing=true": train.gradient_checkpointing,
            "train.shard=true": train.shard,
            f"quantize={self.quantize}": self.quantize,
        }
        given = [text for text, applies in reasons.items() if applies]
        if setting not in (False, "auto") and given:
            raise ValueError(
                f"train.cache_frozen={str(setting).lower()} was given with {given[0]}, and frozen "
                "blocks are then computed each time; take train.cache_frozen=false"
            )
        return self

    @model_validator(mode="after")
    def _check_quantization(self) -> Recipe:
        if self.quantize and self.method.not_quantizable:
            raise ValueError(
                f"quantize={self.quantize} was given, and {self.method.name} cannot train on "
                f"quantized weights: {self.method.not_quantizable}; take lora or iw-lora, or "
                "quantize=null"
            )
        if self.quantize and self.train.frozen_dtype != "float32":
            raise ValueError(
                f"quantize={self.quantize} was given with train.frozen_dtype="
                f"{self.train.frozen_dtype}: both set the type of the frozen weights; take one"
            )
        if self.quantize and self.train.shard:
            raise ValueError(
                f"quantize={self.quantize} was given with train.shard=true, which needs weights of "
                "one type; quantized weights are small: take train.shard=false"
            )
        return self

    @model_validator(mode="after")
    def _check_tokens(self) -> Recipe:
        names = [n for n in ("add_tokens", "trainable_token_indices") if getattr(self, n)]
        if names and self.method.no_token_training:
            raise ValueError(
                f"{names[0]} was given, and {self.method.name} cannot train the embeddings of "
                f"tokens: {self.method.no_token_training}; take lora, or remove it"
            )
        if names and self.train.shard:
            raise ValueError(
                f"{names[0]} was given with train.shard=true, and PEFT does not train single rows "
                "of a sharded table; take train.shard=false"
            )
        return self

    def settings(self) -> dict[str, Any]:
        """All fields as plain values, defaults included."""
        values = self.model_dump(mode="json")
        values["method"] = {"name": self.method.name, **values["method"]}
        return values

    def to_yaml(self) -> str:
        """The recipe file that replays this run."""
        return to_yaml(stamped("recipe", self.settings()))

    def digest(self) -> str:
        """A hash of all settings: equal for equal runs."""
        canonical = json.dumps(self.settings(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def differences(self, other: Recipe) -> list[str]:
        """The settings of ``other`` that are not those of this recipe, such as "train.lr=0.1 (not
        0.2)"; at most five."""
        before, now = _flat(self.settings()), _flat(other.settings())
        fields = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        shown = [
            f"{name}={short_repr(now.get(name))} (not {short_repr(before.get(name))})"
            for name in fields[:_SHOWN]
        ]
        return [*shown, *([f"and {len(fields) - _SHOWN} more"] if len(fields) > _SHOWN else [])]

    def with_train(self, **changes: Any) -> Recipe:
        """The recipe with other values of some fields of ``train``."""
        return self.model_copy(update={"train": self.train.model_copy(update=changes)})

    def with_former_defaults(self, version: int = 1) -> Recipe:
        """The recipe as format ``version`` was read: with its defaults for what is not set.

        A run's ``recipe.yaml`` says its format, and the same command must continue the run. A
        comparison that an older version began (``ComparisonRecord.recipe_format``) begins its
        missing runs with the former defaults too. They are in ``FORMER_DEFAULTS``, in
        ``Method.former_defaults`` and in ``Kind.former_defaults`` (formats 1 and 2).
        """
        changes = [FORMER_DEFAULTS[last] for last in FORMER_DEFAULTS if version <= last]
        former = {part: defaults for change in changes for part, defaults in change.items()}
        of_method = self.method.former_defaults
        former["method"] = {
            k: v for last in of_method if version <= last for k, v in of_method[last].items()
        }
        parts: dict[str, Any] = {}
        for name, defaults in former.items():
            part = getattr(self, name)
            update = {k: v for k, v in defaults.items() if k not in part.model_fields_set}
            parts[name] = part.model_copy(update=update) if update else part
        if version <= LAST_FORMAT_WITHOUT_EXPERTS and self.targets == "all":
            parts["targets"] = "all-linear"
        return self.model_copy(update=parts)


def load(path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and apply overrides.

    Args:
        path: a YAML file.
        overrides: ``key=value`` with dots in the key and YAML in the value.

    Raises:
        IwloraError: every problem of the file and the overrides, one per line.

    Example:
        >>> load("runs/a/recipe.yaml", ["train.lr=5e-4"]).train.lr
        0.0005
    """
    return build(apply_overrides(read_yaml(path), overrides))


def apply_overrides(settings: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Apply overrides; another ``method.name`` drops the options that only the old method has."""
    before, after = settings.get("method"), override(settings, overrides)
    changed = after.get("method")
    if not (isinstance(before, Mapping) and isinstance(changed, dict)):
        return after
    old, new = (METHODS.get(str(method.get("name"))) for method in (before, changed))
    if old and new and old is not new:
        overridden = {key.partition("=")[0].removeprefix("method.") for key in overrides}
        dropped = set(old.model_fields) - set(new.model_fields) - overridden
        after["method"] = {key: v for key, v in changed.items() if key not in dropped}
    return after


def build(settings: Mapping[str, Any]) -> Recipe:
    """Check settings and make the recipe.

    Args:
        settings: the fields of a recipe file: ``model``, ``task``, ``method``, ``train``,
            ``budget``, ``targets``, ``exclude``, ``modules_to_save``, ``add_tokens``,
            ``trainable_token_indices``, ``quantize``, ``trust_remote_code`` and ``label``. Fields
            that are left out have their defaults: those of the version in ``format``, if iwlora
            wrote the recipe.

    Raises:
        IwloraError: every problem, one per line.

    Example:
        >>> build({"model": "builtin/minilm", "task": "builtin/entailment",
        ...        "method": {"name": "lora", "rank": 4}}).method.size
        4
    """
    values, version = unstamped("recipe", settings, "the recipe")
    method, problems = build_method(values.get("method"))
    train, train_problems = validate(TrainSettings, _part(values, "train"), "train")
    spec, task_problems = validate(TaskSpec, _part(values, "task"), "task")
    # Defaults replace the parts that have problems, so that the rest is checked too.
    checked = {
        **values,
        "method": method or METHODS["lora"](),
        "train": train or TrainSettings(),
        "task": spec or TaskSpec(name="builtin/entailment"),
    }
    recipe, recipe_problems = validate(Recipe, checked)
    problems += train_problems + task_problems + recipe_problems
    if recipe is None or problems:
        raise IwloraError("\n".join(problems))
    return recipe.with_former_defaults(version) if FIELD in settings else recipe


def build_method(value: Any) -> tuple[Method | None, list[str]]:
    """(the method, []) or (None, problems) of the ``method:`` part: a name, or name and options."""
    options = {"name": value} if isinstance(value, str) else value
    if not isinstance(options, Mapping) or "name" not in options:
        return None, [f"method.name: missing (accepted: {', '.join(METHODS)})"]
    name = options["name"]
    if not isinstance(name, str) or name not in METHODS:
        return None, [f"method.name: {unknown('method', str(name), METHODS)}"]
    rest = {key: value for key, value in options.items() if key != "name"}
    return validate(METHODS[name], rest, "method")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{dotted name: value} of nested settings."""
    fields: dict[str, Any] = {}
    for name, value in settings.items():
        nested = _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {}
        fields |= nested or {f"{prefix}{name}": value}
    return fields


def _part(settings: Mapping[str, Any], name: str) -> Any:
    """A part of a recipe; plain text is the short form of its ``name``, null an empty part."""
    part = settings.get(name)
    return {} if part is None else {"name": part} if isinstance(part, str) else part
