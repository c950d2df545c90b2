"""Cases that once broke a rule; they run before all others."""

from __future__ import annotations

from hostile.case import Case, Change

REGRESSIONS: tuple[Case, ...] = (
    # a configuration that is no mapping
    Case(
        kind="adapter",
        command="adapter",
        changes=(
            Change(operator="JSON and YAML dialects", file="adapter_config.json", number=281485786),
        ),
        forged=True,
    ),
    # a table that is a pipe
    Case(
        kind="table",
        command="predict table",
        changes=(Change(operator="file types", file="train.jsonl", number=832817053),),
        forged=True,
    ),
    # a table with NUL characters
    Case(
        kind="table",
        command="show table",
        changes=(Change(operator="CSV dialects", file="train.tsv", number=900204686),),
        forged=True,
    ),
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
    Case(
        kind="adapter",
        command="adapter",
        changes=(Change(operator="repetition", file="adapter_config.json", number=541504440),),
        forged=True,
    ),
    # an adapter without its tensors
    Case(
        kind="own adapter",
        command="adapter",
        changes=(Change(operator="files missing", file="adapter.safetensors", number=482496446),),
        forged=True,
    ),
    # tensors with another header
    Case(
        kind="adapter",
        command="adapter",
        changes=(
            Change(
                operator="safetensors headers", file="adapter_model.safetensors", number=325144246
            ),
        ),
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
    Case(
        kind="comparison",
        command="compare",
        changes=(
            Change(operator="folders elsewhere", file="head/seed-0/result.json", number=642425559),
        ),
        forged=True,
    ),
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
    Case(
        kind="adapter",
        command="adapter",
        changes=(Change(operator="pickles", file="adapter_model.safetensors", number=216313411),),
        forged=True,
    ),
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
    Case(
        kind="model",
        command="train model",
        changes=(Change(operator="sizes", file="config.json", number=701946733),),
        forged=True,
    ),
    # a link to a folder elsewhere under the name of a table: the folder was listed for splits
    Case(
        kind="table",
        command="show table",
        changes=(Change(operator="file types", file="train.ods", number=463516937),),
        forged=False,
    ),
    # columns whose names are marks of direction
    Case(
        kind="table",
        command="train table",
        changes=(Change(operator="JSON lines", file="train.jsonl", number=137418716),),
        forged=False,
    ),
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
    Case(
        kind="saved dataset",
        command="predict table",
        changes=(
            Change(operator="fields", file="splits/train/dataset_info.json", number=153391917),
        ),
        forged=True,
    ),
    # a table of 20,000 columns: guessing among them took minutes
    Case(
        kind="scores",
        command="compare scores",
        changes=(Change(operator="CSV dialects", file="scores.csv", number=234749995),),
        forged=True,
    ),
    # a checkpoint whose tensor would be copied into all rows of a parameter
    Case(
        kind="unfinished run",
        command="resume",
        changes=(
            Change(
                operator="safetensors headers",
                file="checkpoints/checkpoint-1/trainable.safetensors",
                number=968064670,
            ),
        ),
        forged=True,
    ),
    # a checkpoint whose sum of losses is a list
    Case(
        kind="unfinished run",
        command="resume",
        changes=(
            Change(
                operator="JSON and YAML dialects",
                file="checkpoints/checkpoint-1/loss-0.json",
                number=633527665,
            ),
        ),
        forged=True,
    ),
    # a folder of a model that is not there: its name was looked for on the hub
    Case(
        kind="model",
        command="measure model",
        changes=(Change(operator="files missing", file="tokenizer_config.json", number=731368031),),
        forged=False,
    ),
    # a damaged state of the Trainer in a checkpoint whose seal fits
    Case(
        kind="unfinished run",
        command="resume",
        changes=(
            Change(
                operator="bytes",
                file="checkpoints/checkpoint-1/trainer_state.json",
                number=436721113,
            ),
        ),
        forged=True,
    ),
    # an unfinished measurement whose sums are texts
    Case(
        kind="unfinished run",
        command="resume",
        changes=(
            Change(
                operator="fields",
                file="checkpoints/checkpoint-1/sensitivity-in-flight.json",
                number=834599885,
            ),
        ),
        forged=True,
    ),
)
