"""Strategies for recipes of runs and comparisons, overrides, and YAML that unfolds hugely."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from fuzzing.inputs import KEEP, MODEL, WORK, Input, encoded, numbers, rubbish, spoiled, values
from iwlora.inputs.yaml_json import to_yaml
from iwlora.methods import METHODS
from iwlora.tasks import TaskSpec
from iwlora.tasks import names as tasks
from iwlora.tasks.kinds import KINDS
from iwlora.training.recipe import Recipe
from iwlora.training.train_settings import TrainSettings

OUT = f"{WORK}/out"
TASK = {"train": f"{KEEP}/task/train.csv", "text": "text", "label": "mood"}
TRAIN: dict[str, Any] = {"epochs": 1, "lr": 5e-3, "batch_size": 16, "max_length": 32}
BASE: dict[str, Any] = {
    "model": MODEL,
    "task": TASK,
    "method": {"name": "lora", "rank": 2},
    "train": TRAIN,
}

FIELDS = [
    *((name,) for name in Recipe.model_fields),
    *(("train", name) for name in TrainSettings.model_fields),
    *(("task", name) for name in TaskSpec.model_fields),
    *(("task", "kind", name) for kind in KINDS.values() for name in kind.model_fields),
    *(("method", name) for method in METHODS.values() for name in method.model_fields),
]
SENSIBLE: dict[tuple[str, ...], Any] = {
    ("task", "kind"): st.sampled_from(sorted(KINDS)).map(lambda name: {"name": name}),
    ("task", "name"): st.sampled_from(tasks()),
    ("task", "train"): st.just(f"{KEEP}/task/train.csv"),
    ("task", "validation"): st.just(f"{KEEP}/task/validation.csv"),
    ("method",): st.sampled_from(sorted(METHODS)),
    ("targets",): st.sampled_from(["all", ["query"], ["query", "value"], ["up"]]),
    ("budget",): st.sampled_from(["1%", "2k", 3000, 0.5]),
    ("label",): st.sampled_from(["mine", "a.b", "A+"]),
    ("train", "precision"): st.sampled_from(["fp32", "bf16"]),
}
parts = st.one_of(st.integers(1, 64), st.floats(0, 1), st.booleans())


@st.composite
def changes(draw: st.DrawFn) -> tuple[tuple[str, ...], Any]:
    """A field of a recipe, which may not exist, and a value for it."""
    keys = draw(st.sampled_from(FIELDS))
    if draw(st.integers(0, 9)) == 0:
        keys = (*keys[:-1], draw(st.text(min_size=1, max_size=8)))
    sensible = SENSIBLE.get(keys, parts)
    return keys, draw(st.one_of(sensible, sensible, sensible, numbers, values))


def changed(settings: Any, keys: tuple[Any, ...], value: Any) -> Any:
    """The settings with another value under these keys, which are created if they are missing."""
    if not keys:
        return value
    key, *rest = keys
    if isinstance(settings, list) and isinstance(key, int) and settings:
        index = key % len(settings)
        item = changed(settings[index], tuple(rest), value)
        return [*settings[:index], item, *settings[index + 1 :]]
    inner = settings if isinstance(settings, dict) else {}
    return {**inner, key: changed(inner.get(key), tuple(rest), value)}


@st.composite
def written(draw: st.DrawFn, settings: Any) -> bytes:
    """Settings as YAML, sometimes damaged."""
    text = encoded(to_yaml(settings))
    return draw(spoiled(text)) if draw(st.integers(0, 4)) == 0 else text


@st.composite
def runs(draw: st.DrawFn) -> Input:
    """``iwlora train`` with up to three random fields in its recipe."""
    settings: Any = BASE
    for keys, value in draw(st.lists(changes(), max_size=3)):
        settings = changed(settings, keys, value)
    out = draw(st.sampled_from([OUT, OUT, OUT, f"{KEEP}/run", f"{KEEP}/comparison", KEEP]))
    recipe = draw(written(settings))
    trains = draw(st.integers(0, 24)) == 0 and out == OUT
    return Input(("train", f"{WORK}/r.yaml", "--out", out), {"r.yaml": recipe}, trains=trains)


ARMS = st.one_of(
    st.sampled_from(sorted(METHODS)),
    st.builds(
        lambda name, key, value: {"name": name, key: value},
        st.sampled_from(sorted(METHODS)),
        st.sampled_from(["label", "train", "search", "rank", "seed", "model", "bottleneck"]),
        values,
    ),
    values,
)


@st.composite
def comparisons(draw: st.DrawFn) -> Input:
    """``iwlora compare`` with random methods, seeds, search and controls."""
    base = {key: value for key, value in BASE.items() if key != "method"}
    settings: Any = {**base, "methods": ["lora"], "unequal_budgets": True}
    settings["methods"] = draw(st.one_of(st.lists(ARMS, min_size=1, max_size=3), values))
    seeds = st.one_of(st.lists(st.integers(0, 3), min_size=1, max_size=3), values)
    rates = st.fixed_dictionaries({"lr": st.one_of(st.just([1e-4, 1e-3, 1e-2]), values)})
    if draw(st.booleans()):
        settings["seeds"] = draw(seeds)
    if draw(st.integers(0, 2)) == 0:
        settings["search"] = draw(st.one_of(rates, values))
    if draw(st.integers(0, 3)) == 0:
        settings["controls"] = draw(st.one_of(st.booleans(), values))
    for keys, value in draw(st.lists(changes(), max_size=1)):
        if keys[0] != "method":
            settings = changed(settings, keys, value)
    out = draw(st.sampled_from([OUT, OUT, f"{KEEP}/comparison", f"{KEEP}/run"]))
    recipe = draw(written(settings))
    more = draw(st.sampled_from([(), (), ("--jobs", "0"), ("--jobs", "-3"), ("--jobs", "99999")]))
    return Input(("compare", f"{WORK}/r.yaml", "--out", out, *more), {"r.yaml": recipe})


@st.composite
def overrides(draw: st.DrawFn) -> Input:
    """Random ``key=value`` settings after a valid recipe."""
    texts = []
    for _ in range(draw(st.integers(1, 3))):
        keys, value = draw(changes())
        key = ".".join(map(str, keys))
        as_yaml = to_yaml(value).removesuffix("...\n").strip()
        text = draw(st.text()) if draw(st.integers(0, 5)) == 0 else as_yaml
        forms = (*[f"{key}={text}"] * 6, f"{key}{text}", f"{key}.x={text}")
        texts.append(draw(st.sampled_from(forms)))
    # An argument has no NUL; bytes that are not UTF-8 arrive as lone surrogates.
    safe = tuple(text.replace("\0", "") for text in texts)
    command = draw(st.sampled_from(["train", "train", "compare", "measure", "show"]))
    recipe = encoded(to_yaml(BASE))
    plan = {key: value for key, value in BASE.items() if key != "method"} | {"methods": ["lora"]}
    start = {
        "train": ("train", f"{WORK}/r.yaml", "--out", OUT),
        "compare": ("compare", f"{WORK}/c.yaml", "--out", OUT),
        "measure": ("measure", "--model", MODEL, "--out", f"{WORK}/m.json", *_task()),
        "show": ("tasks", "show", "--model", MODEL, *_task()),
    }[command]
    return Input((*start, *safe), {"r.yaml": recipe, "c.yaml": encoded(to_yaml(plan))})


def _task() -> list[str]:
    return [*(f"task.{key}={value}" for key, value in TASK.items()), "train.max_length=32"]


@st.composite
def bombs(draw: st.DrawFn) -> Input:
    """YAML with aliases of aliases, endless ones, deep nesting, numbers of thousands of digits."""
    width, depth = draw(st.integers(2, 12)), draw(st.integers(2, 40))
    form = draw(st.sampled_from(["list", "mapping", "endless", "deep", "braces", "int", "keys"]))
    key = draw(st.sampled_from(["model", "task", "method", "train", "methods", "seeds", "sources"]))
    if form in ("list", "mapping"):
        lines = ["a0: &a0 [x, x]" if form == "list" else "a0: &a0 {k: x}"]
        for level in range(1, depth):
            if form == "list":
                inner = f"[{', '.join([f'*a{level - 1}'] * width)}]"
            else:
                inner = f"{{{', '.join(f'k{i}: *a{level - 1}' for i in range(width))}}}"
            lines.append(f"a{level}: &a{level} {inner}")
        bomb = "\n".join([*lines, f"{key}: *a{depth - 1}"])
    elif form == "endless":
        bomb = draw(st.sampled_from([f"{key}: &a [*a]", f"{key}: &a {{b: *a}}", "&a [*a]"]))
    elif form == "deep":
        bomb = "\n".join(f"{' ' * level}k:" for level in range(depth * 40))
    elif form == "braces":
        bomb = f"{key}: " + draw(st.sampled_from(["[", "{a: ", "- ", "!!x ", "&a "])) * depth * 200
    elif form == "int":
        bomb = f"{key}: {'9' * depth * 300}\ntrain: {{lr: 1e{'9' * depth}, epochs: {'7' * 500}}}"
    else:
        bomb = "\n".join(f"k{number}: {number}" for number in range(depth * 200))
    text = encoded(bomb) + b"\n" + draw(st.one_of(st.just(b""), rubbish))
    target = draw(st.sampled_from(["train", "compare", "comparison.yaml", "sources.yaml", "value"]))
    if target in ("train", "compare"):
        return Input((target, f"{WORK}/r.yaml", "--out", OUT), {"r.yaml": text})
    if target == "value":
        value = encoded(bomb.partition(": ")[2]).decode("utf-8", "replace").replace("\0", "")
        recipe = encoded(to_yaml(BASE))
        override = f"{key}={value[:100_000]}"
        return Input(("train", f"{WORK}/r.yaml", override, "--out", OUT), {"r.yaml": recipe})
    result = draw(st.sampled_from(["comparison", "run"]))
    return Input(("report", f"{WORK}/it"), {f"it/{target}": text}, copies={"it": result})
