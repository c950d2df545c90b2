"""Strategies for damaged runs and comparisons, and for commands with a finished one as output."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from fuzzing.inputs import KEEP, MODEL, WORK, Edits, Input, cuts, encoded, plain, rubbish, values
from fuzzing.recipes import BASE, changed
from iwlora.inputs.yaml_json import to_yaml

ADAPTER = ("adapter/adapter_config.json", "adapter/adapter_model.safetensors")
OURS = ("adapter/iwlora_adapter.json", "adapter/adapter.safetensors")
RUN = (
    *("recipe.yaml", "environment.json", "status.json", "metrics.jsonl", "result.json"),
    *("sensitivity.json", "predictions/validation.csv", "tokenizer/tokenizer.json", *ADAPTER),
    *("tokenizer/tokenizer_config.json", "checkpoints/checkpoint-2/complete.json"),
    *("checkpoints/checkpoint-2/trainer_state.json", "checkpoints/checkpoint-2/optimizer.pt"),
    *("checkpoints/checkpoint-2/trainable.safetensors", "checkpoints/checkpoint-2/rng_state.pth"),
    *("checkpoints/checkpoint-2/sensitivity.json", "checkpoints/checkpoint-1/complete.json"),
)
BELOW = tuple(f"{arm}/seed-{seed}" for arm in ("head", "lora") for seed in (0, 1))
COMPARISON = (
    *("comparison.yaml", "failures.jsonl", "search.json", "summary.json", "sources.yaml"),
    *(f"{run}/{file}" for run in BELOW for file in RUN[:7]),
)
RESULT = (
    *("method", "label", "model", "task", "seed", "metrics", "primary_metric", "evaluated_on"),
    *("selected_on", "trainable_parameters", "adapter_parameters", "head_parameters", "ranks"),
    *("train_seconds", "measure_seconds", "examples_per_second", "peak_memory_bytes", "rank"),
    *("train_examples", "epochs", "learning_rate", "resumed_at_step", "data_digest", "kind"),
    *("head_digest", "labels", "text", "task_metrics", "notes", "format"),
)
SITE = ("name", "kind", "depth", "d_in", "d_out", "value", "stderr")
SENSITIVITY = (
    *("sites", "estimator", "batches", "share_error", "converged", "seconds", "format"),
    *("statistic", "share_bound"),
)
CONFIG = (
    *("base_model_name_or_path", "peft_type", "task_type", "r", "lora_alpha", "target_modules"),
    *("rank_pattern", "alpha_pattern", "modules_to_save", "bias", "fan_in_fan_out", "use_dora"),
    *(
        "layers_to_transform",
        "layers_pattern",
        "init_lora_weights",
        "auto_mapping",
        "inference_mode",
    ),
    *("lora_dropout", "exclude_modules", "target_parameters", "use_rslora", "revision"),
)
SETTINGS = ("method", "size", "sites", "base_model_name_or_path")
FIELDS: dict[str, tuple[tuple[str | int, ...], ...]] = {
    "result.json": (*((name,) for name in RESULT), ("metrics", "accuracy"), ("kind", "name")),
    "sensitivity.json": (
        *((name,) for name in SENSITIVITY),
        *(("sites", 1, name) for name in SITE),
        ("sites", 0),
    ),
    "status.json": (("state",), ("error",), ("format",)),
    "environment.json": (("python",), ("packages",), ("x",)),
    ADAPTER[0]: tuple((name,) for name in CONFIG),
    OURS[0]: (*((name,) for name in SETTINGS), ("method", "name"), ("sites", 0)),
    "tokenizer/tokenizer_config.json": (("tokenizer_class",), ("model_max_length",), ("x",)),
    "tokenizer/tokenizer.json": (("model",), ("model", "vocab"), ("normalizer",), ("version",)),
    "checkpoints/checkpoint-2/complete.json": (
        ("format",),
        ("files",),
        ("seconds",),
        ("files", "../x"),
    ),
    "checkpoints/checkpoint-2/trainer_state.json": (("global_step",), ("epoch",), ("max_steps",)),
    "recipe.yaml": (
        ("format",),
        ("model",),
        ("task",),
        ("method", "name"),
        ("train", "lr"),
        ("label",),
    ),
    "comparison.yaml": (
        *(("model",), ("task",), ("searched",), ("methods",), ("methods", 1), ("seeds",)),
        *(("seeds", 0), ("recipe",), ("recipe_format",), ("format",), ("x",)),
    ),
    "search.json": (("arms",), ("arms", "lora"), ("arms", "lora", "trials"), ("format",)),
}


@st.composite
def edits(draw: st.DrawFn, file: str) -> Edits:
    """One or two fields of a JSON file with other values."""
    known = next((FIELDS[name] for name in FIELDS if file.endswith(name)), (("x",),))
    edit = st.tuples(st.sampled_from(known), st.one_of(plain, values))
    return tuple(draw(st.lists(edit, min_size=1, max_size=2)))


@st.composite
def damage(draw: st.DrawFn, folder: str, files: tuple[str, ...]) -> dict[str, Any]:
    """Fields of :class:`Input` that cut, replace, remove, edit or link a few files of a copy."""
    damaged: dict[str, Any] = {"files": {}, "cuts": {}, "edits": {}, "links": {}}
    for file in draw(st.lists(st.sampled_from(files), min_size=1, max_size=2, unique=True)):
        path = f"{folder}/{file}"
        fields = any(file.endswith(name) for name in FIELDS)
        how = draw(st.sampled_from(["cuts", "files", "none", "edits", "edits", "edits", "links"]))
        if how == "cuts" or (how == "edits" and not fields):
            damaged["cuts"][path] = draw(cuts)
        elif how == "files":
            damaged["files"][path] = draw(rubbish)
        elif how == "none":
            damaged["files"][path] = None
        elif how == "edits":
            damaged["edits"][path] = draw(edits(file))
        else:
            targets = (f"{KEEP}/run/{RUN[4]}", f"{KEEP}/run", path, "/etc/passwd", "no/such", KEEP)
            damaged["links"][path] = draw(st.sampled_from((f"{WORK}/{folder}", *targets)))
    return damaged


READERS = {
    "report": ("report", "{it}"),
    "compare": ("compare", "{it}", f"{KEEP}/run", "--out", f"{WORK}/out"),
    "average": ("tasks", "average", "{it}"),
    "export": ("export", "{it}", "--to", f"{WORK}/out"),
    "merge": ("export", "{it}", "--to", f"{WORK}/out", "--merge"),
    "predict": ("predict", "{it}", "--input", f"{KEEP}/task/validation.csv", "--output"),
    "train": ("train", "{it}/recipe.yaml", "--out", "{it}"),
}


def _command(name: str, folder: str) -> tuple[str, ...]:
    command = tuple(part.replace("{it}", f"{WORK}/{folder}") for part in READERS[name])
    return (*command, f"{WORK}/out.csv") if name == "predict" else command


@st.composite
def runs(draw: st.DrawFn) -> Input:
    """A finished run with damaged files: read, or started again without its result."""
    result = draw(st.sampled_from(["run", "run", "bits"]))
    damaged = draw(damage("it", RUN if result == "run" else (*RUN, *OURS)))
    name = draw(st.sampled_from([*READERS, "train"]))
    if name == "train" and draw(st.booleans()):
        damaged["files"]["it/result.json"] = None
    trains = name == "train" and draw(st.integers(0, 3)) == 0
    return Input(_command(name, "it"), copies={"it": result}, trains=trains, **damaged)


@st.composite
def adapters(draw: st.DrawFn) -> Input:
    """Adapters that do not fit, to predict with, to export, to merge."""
    result = draw(st.sampled_from(["run", "run", "bits"]))
    files = ADAPTER if result == "run" else OURS
    damaged = draw(damage("it", (*files, "recipe.yaml", "result.json")))
    name = draw(st.sampled_from(["export", "merge", "predict", "predict", "report"]))
    return Input(_command(name, "it"), copies={"it": result}, **damaged)


@st.composite
def comparisons(draw: st.DrawFn) -> Input:
    """A comparison with damaged files: reported, compared again or started again."""
    damaged = draw(damage("it", COMPARISON))
    name = draw(st.sampled_from(["report", "report", "compare", "average", "again"]))
    if name != "again":
        return Input(_command(name, "it"), copies={"it": "comparison"}, **damaged)
    settings: Any = {key: value for key, value in BASE.items() if key != "method"}
    arms = [["head", {"name": "lora", "rank": 2}], ["head"], ["bitfit"], ["head", "bitfit"]]
    settings |= {"methods": draw(st.sampled_from(arms))}
    settings |= {"seeds": draw(st.sampled_from([[0, 1], [0], [2], [0, 1, 2]]))}
    damaged["files"]["r.yaml"] = encoded(to_yaml(settings))
    return Input(
        ("compare", f"{WORK}/r.yaml", "--out", f"{WORK}/it"), copies={"it": "comparison"}, **damaged
    )


HEAD = ("method", "task", "seed", "score", "metric", "model", "train_seconds", "peak_memory_bytes")


@st.composite
def scores(draw: st.DrawFn) -> Input:
    """A CSV table of scores from another program."""
    head = draw(st.one_of(st.just(list(HEAD[:4])), st.lists(st.sampled_from(HEAD), max_size=8)))
    cell = st.one_of(st.integers(-2, 9).map(str), st.floats().map(str), plain.map(str))
    random_cells = {
        "method": st.one_of(st.sampled_from(["lora", "full", "iw-lora"]), cell),
        "task": st.one_of(st.sampled_from(["rte", "sst2"]), cell),
        "seed": st.one_of(st.integers(0, 9).map(str), cell),
        "score": st.one_of(st.floats(0, 1).map(str), cell),
    }
    invalid = draw(st.booleans())
    valid_cells = {
        **random_cells,
        "method": st.sampled_from(["lora", "full"]),
        "task": st.just("rte"),
    }
    valid_cells |= {"seed": st.integers(0, 99).map(str), "score": st.floats(0, 1).map(str)}
    rows = [head]
    for _ in range(draw(st.integers(0, 8)) or draw(st.integers(0, 8))):
        cells = random_cells if invalid else valid_cells
        rows.append([draw(cells.get(name, cell)) for name in head])
    whole = encoded("\n".join(",".join(row) for row in rows) + "\n")
    if draw(st.integers(0, 4)) == 0:
        whole += draw(rubbish)
    other = draw(
        st.sampled_from([(), (), (), (), (f"{KEEP}/run",), (f"{WORK}/s.csv",), (f"{WORK}/no",)])
    )
    aims = (*[f"{WORK}/out"] * 6, f"{KEEP}/comparison", f"{KEEP}/run")
    out = draw(st.sampled_from(aims))
    return Input(("compare", f"{WORK}/s.csv", *other, "--out", out), {"s.csv": whole})


@st.composite
def sensitivities(draw: st.DrawFn) -> Input:
    """Two measurements to compare, one or both of them damaged."""
    damaged = draw(damage("a", ("sensitivity.json",)))
    second = f"{KEEP}/run/sensitivity.json"
    copies = {"a": "run"}
    if draw(st.booleans()):
        other = draw(damage("b", ("sensitivity.json",)))
        damaged = {key: {**damaged[key], **other[key]} for key in damaged}
        second, copies["b"] = f"{WORK}/b/sensitivity.json", "run"
    files = [f"{WORK}/a/sensitivity.json", second]
    return Input(("measure", "--compare", *draw(st.permutations(files))), copies=copies, **damaged)


@st.composite
def attacks(draw: st.DrawFn) -> Input:
    """Commands whose outputs lead to good results, directly or by a link in their folder."""
    inside = draw(
        st.sampled_from(
            [
                "",
                "result.json",
                "sensitivity.json",
                "predictions/validation.csv",
                "recipe.yaml",
                "adapter",
                "adapter/adapter_model.safetensors",
                "status.json",
                "new.json",
                "new.csv",
                "checkpoints",
                "metrics.jsonl",
                "comparison.yaml",
                "summary.json",
                "report.html",
                "lora/seed-0/result.json",
                "lora/seed-0",
                "lora",
                "summary.csv",
                "figures/x.json",
            ]
        )
    )
    aim = f"{KEEP}/{draw(st.sampled_from(['run', 'bits', 'comparison']))}/{inside}".rstrip("/")
    if draw(st.integers(0, 4)) == 0:
        aim = aim.replace(KEEP, f"{WORK}/no/../../keep")
    settings: Any = BASE
    for name in draw(st.lists(st.sampled_from(["lr", "seed", "save_steps"]), max_size=2)):
        settings = changed(settings, ("train", name), draw(st.sampled_from([1, 2])))
    files: dict[str, bytes | None] = {"r.yaml": encoded(to_yaml(settings))}
    plan = {key: value for key, value in settings.items() if key != "method"}
    plan |= {
        "methods": draw(st.sampled_from([["head"], ["bitfit"], [{"name": "lora", "rank": 2}]]))
    }
    files["c.yaml"] = encoded(to_yaml(plan))
    task = [f"task.{key}={value}" for key, value in BASE["task"].items()]
    measured = ("measure", "--model", MODEL, *task, "train.max_length=32", "--max-batches", "1")
    attack = draw(st.sampled_from(["out", "out", "link", "whole"]))
    commands: list[tuple[str, ...]] = [
        ("train", f"{WORK}/r.yaml", "--out", aim),
        ("compare", f"{WORK}/c.yaml", "--out", aim),
        ("compare", f"{KEEP}/run", f"{KEEP}/bits", "--out", aim),
        ("export", f"{KEEP}/run", "--to", aim),
        ("export", f"{KEEP}/run", "--to", aim, "--merge"),
        ("predict", f"{KEEP}/run", "--input", f"{KEEP}/task/validation.csv", "--output", aim),
        (*measured, "--out", aim),
    ]
    if attack == "out":
        return Input(draw(st.sampled_from(commands)), files, trains=draw(st.booleans()))
    if attack == "whole":
        links = {"out": aim}
        command = tuple(
            part.replace(aim, f"{WORK}/out") for part in draw(st.sampled_from(commands))
        )
        return Input(command, files, links=links, trains=draw(st.booleans()))
    # An unfinished run or comparison whose folder has a link to a good result.
    link = draw(
        st.sampled_from(
            [
                "metrics.jsonl",
                "adapter",
                "predictions",
                "tokenizer",
                "checkpoints",
                "status.json",
                "sensitivity.json",
                "environment.json",
                "penalty.jsonl",
                ".lock",
                "result.json",
                "head",
                "logs",
                "failures.jsonl",
                "comparison.yaml",
                "figures",
                "summary.json",
                "head/seed-0",
                "report.html",
                "adapter/adapter_model.safetensors",
                "model",
            ]
        )
    )
    name, file = draw(st.sampled_from([("train", "r.yaml"), ("compare", "c.yaml")]))
    whole = (name, f"{WORK}/{file}", "--out", f"{WORK}/out")
    if name == "train":
        files["out/recipe.yaml"] = files["r.yaml"]
    return Input(whole, files, links={f"out/{link}": aim}, trains=True)
