"""Where models and data sets come from: folders, the hub and its cache on this machine."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from iwlora.inputs.places import check_folder
from iwlora.inputs.tensors import opening_errors


def cached_folder(hub_id: str) -> Path | None:
    """The folder of the hub's cache with a model; None if it is not on this machine."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(hub_id, "config.json")
    except HFValidationError:  # the name of a folder
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def load_hub_dataset(hub_id: str | None, configuration: str | None) -> Any:
    """The splits of a data set on the hub, or in its local cache; raises what datasets raises."""
    import datasets

    with _hub(datasets.config):
        return datasets.load_dataset(hub_id, configuration)


@contextmanager
def opening(source: str | Path) -> Iterator[None]:
    """A block that opens a model: in a folder that is checked before, or by its name on the hub."""
    if Path(source).is_dir():
        check_folder(source)
        with opening_errors():
            yield
        return
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(source)):
        raise FileNotFoundError(
            f"there is no folder {source}, and models on the hub are called NAME or OWNER/NAME"
        )
    with _hub(), opening_errors():
        yield


@contextmanager
def _hub(*others: Any) -> Iterator[None]:
    """A block that asks the hub; where it cannot be found, only its cache is asked.

    Without a network the libraries would look for it again and again, for half a minute.

    Args:
        others: Modules that have a switch of their own beside that of huggingface_hub.
    """
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT).hostname
    known = constants.HF_HUB_OFFLINE or getproxies().get("https") or _has_address(host)
    before = [(switch, switch.HF_HUB_OFFLINE) for switch in (constants, *others)]
    for switch, offline in before:
        switch.HF_HUB_OFFLINE = offline or not known
    try:
        yield
    finally:
        for switch, offline in before:
            switch.HF_HUB_OFFLINE = offline


def _has_address(host: str | None) -> bool:
    try:
        return bool(socket.getaddrinfo(host, 443))
    except OSError:
        return False
