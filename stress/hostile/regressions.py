"""Cases that once broke a rule; they run before all others."""

from __future__ import annotations

from hostile.case import Case, Change


def _one(
    kind: str, command: str, operator: str, file: str, number: int, *, forged: bool = True
) -> Case:
    """A case with one change."""
    return Case(kind, command, (Change(operator, file, number),), forged)


REGRESSIONS: tuple[Case, ...] = (
    # a configuration that is no mapping
    _one("adapter", "adapter", "JSON and YAML dialects", "adapter_config.json", 281485786),
    # a table that is a pipe
    _one("table", "predict table", "file types", "train.jsonl", 832817053),
    # a table with NUL characters
    _one("table", "show table", "CSV dialects", "train.tsv", 900204686),
    # a tokenizer without its unknown token
    Case(
        kind="model",
        command="show model",
        changes=(
            Change(operator="tokenizers", file="tokenizer.json", number=345204047),
            Change(operator="names", file="model.safetensors", number=637992799),
        ),
        forged=True,
    ),
    # a configuration of an unknown type
    Case(
        kind="model",
        command="show model",
        changes=(
            Change(operator="repetition", file="tokenizer.json", number=500657278),
            Change(operator="file types", file="model.safetensors", number=313764908),
            Change(operator="paths in fields", file="config.json", number=785310649),
        ),
        forged=False,
    ),
    # 100,000 modules to save
    _one("adapter", "adapter", "repetition", "adapter_config.json", 541504440),
    # an adapter without its tensors
    _one("own adapter", "adapter", "files missing", "adapter.safetensors", 482496446),
    # tensors with another header
    _one(
        "adapter",
        "adapter",
        "safetensors headers",
        "adapter_model.safetensors",
        325144246,
        forged=False,
    ),
    # digests of rows that unfold to 75 GB
    Case(
        kind="unfinished run",
        command="resume",
        changes=(
            Change(operator="arrays", file="row-digests.npz", number=545733226),
            Change(
                operator="paths in fields",
                file="checkpoints/checkpoint-1/trainer_state.json",
                number=556465363,
            ),
            Change(
                operator="fields",
                file="checkpoints/checkpoint-2/sensitivity.json",
                number=144451232,
            ),
        ),
        forged=True,
    ),
    # a model's tokenizer that is a link
    Case(
        kind="model",
        command="train model",
        changes=(
            Change(operator="sizes", file="tokenizer_config.json", number=421162815),
            Change(operator="file types", file="tokenizer.json", number=180311416),
            Change(operator="classes in modules", file="config.json", number=980683454),
        ),
        forged=True,
    ),
    # runs of a comparison that are a link
    _one("comparison", "compare", "folders elsewhere", "head/seed-0/result.json", 642425559),
    # an adapter's configuration that is a link
    Case(
        kind="adapter",
        command="adapter",
        changes=(
            Change(operator="fields", file="adapter_config.json", number=472224357),
            Change(operator="file types", file="adapter_config.json", number=230045003),
        ),
        forged=True,
    ),
    # a pickle in place of tensors
    _one("adapter", "adapter", "pickles", "adapter_model.safetensors", 216313411),
    # a model of 64 GB with the weights of a tiny one
    Case(
        kind="model",
        command="measure model",
        changes=(
            Change(operator="JSON and YAML dialects", file="tokenizer.json", number=162516103),
            Change(operator="paths in fields", file="tokenizer_config.json", number=509903492),
            Change(operator="sizes", file="config.json", number=973687902),
        ),
        forged=True,
    ),
    # a model of 4 GB with the weights of a tiny one
    _one("model", "train model", "sizes", "config.json", 701946733),
    # a link to a folder elsewhere under the name of a table: the folder was listed for splits
    _one("table", "show table", "file types", "train.ods", 463516937, forged=False),
    # columns whose names are marks of direction
    _one("table", "train table", "JSON lines", "train.jsonl", 137418716, forged=False),
    # fields of an adapter that PEFT refuses together
    Case(
        kind="adapter",
        command="adapter",
        changes=(
            Change(operator="pickles", file="adapter_model.safetensors", number=23811991),
            Change(operator="fields", file="adapter_config.json", number=568521213),
        ),
        forged=True,
    ),
    # a class id beyond the classes that a saved data set names
    _one("saved dataset", "predict table", "fields", "splits/train/dataset_info.json", 153391917),
    # a table of 20,000 columns: guessing among them took minutes
    _one("scores", "compare scores", "CSV dialects", "scores.csv", 234749995),
    # a checkpoint whose tensor would be copied into all rows of a parameter
    _one(
        "unfinished run",
        "resume",
        "safetensors headers",
        "checkpoints/checkpoint-1/trainable.safetensors",
        968064670,
    ),
    # a checkpoint whose sum of losses is a list
    _one(
        "unfinished run",
        "resume",
        "JSON and YAML dialects",
        "checkpoints/checkpoint-1/loss-0.json",
        633527665,
    ),
    # a folder of a model that is not there: its name was looked for on the hub
    _one(
        "model", "measure model", "files missing", "tokenizer_config.json", 731368031, forged=False
    ),
    # a damaged state of the Trainer in a checkpoint whose seal fits
    _one(
        "unfinished run",
        "resume",
        "bytes",
        "checkpoints/checkpoint-1/trainer_state.json",
        436721113,
    ),
    # an unfinished measurement whose sums are texts
    _one(
        "unfinished run",
        "resume",
        "fields",
        "checkpoints/checkpoint-1/sensitivity-in-flight.json",
        834599885,
    ),
    # a task with the same text column 20,000 times
    _one("run", "predict", "repetition", "result.json", 68230349),
    # the state of a scaler, which no run has
    _one(
        "unfinished run",
        "resume",
        "pickles",
        "checkpoints/checkpoint-1/rng_state.pth",
        383519690,
    ),
    # a schedule of texts
    _one(
        "unfinished run",
        "resume",
        "numbers in PyTorch files",
        "checkpoints/checkpoint-1/scheduler.pt",
        964399417,
    ),
    # 2^63 layers, and an index of weights that are not there
    Case(
        kind="model",
        command="train model",
        changes=(
            Change(operator="weights in parts", file="model.safetensors", number=688166149),
            Change(operator="sizes", file="config.json", number=76953965),
        ),
        forged=False,
    ),
    # a link to a folder elsewhere, whose files were listed
    Case(
        kind="saved dataset",
        command="train table",
        changes=(
            Change(operator="file types", file="rows/state.json", number=843786625),
            Change(operator="fields", file="rows/dataset_info.json", number=631990441),
        ),
        forged=False,
    ),
)
