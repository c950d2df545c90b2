"""Whether an argument of the command line is data to train on, in place of a recipe or results."""

from __future__ import annotations

from pathlib import Path

from iwlora.errors import IwloraError
from iwlora.inputs.tables.records import columns_of
from iwlora.results.comparison.combined import holds_results
from iwlora.training.overrides import is_assignment


def is_data(path: str) -> bool:
    """Whether an argument names data and no recipe: a folder, or a file with another ending.

    >>> is_data("reviews.csv"), is_data("recipes/quickstart.yaml"), is_data("recipe.YML")
    (True, False, False)
    >>> is_data("train.lr=0.01")
    False
    """
    if is_assignment(path):
        return False
    return Path(path).is_dir() or Path(path).suffix.lower() not in ("", ".yaml", ".yml")


def is_data_beside_results(path: str) -> bool:
    """Whether data are named where results may stand too, such as folders of runs.

    >>> is_data_beside_results("scores-that-are-not-there.csv")
    False
    """
    if not is_data(path) or not Path(path).exists() or holds_results(Path(path)):
        return False
    if not Path(path).is_dir():
        return True
    try:
        return bool(columns_of(path))
    except IwloraError:  # what is wrong with a folder of results is said by who reads it
        return False


def default_folder(path: str, suffix: str = "") -> str:
    """Where the result goes if the user names no folder.

    >>> default_folder("data/reviews.jsonl.gz"), default_folder("data/reviews", "-compared")
    ('runs/reviews', 'runs/reviews-compared')
    >>> default_folder("recipes/images/transfer.yaml")
    'runs/transfer'
    """
    name = Path(path).absolute().name
    return str(Path("runs") / f"{name.removesuffix('.gz').partition('.')[0] or name}{suffix}")
