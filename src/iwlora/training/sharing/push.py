"""Uploads an exported folder to the Hugging Face hub, or to the one that ``HF_ENDPOINT`` names."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import HfApi, get_token

from iwlora.errors import IwloraError, truncate

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def check_push(name: str) -> None:
    """Raise ``IwloraError`` for a name that no repository has, and without a token."""
    if not _NAME.fullmatch(name):
        raise IwloraError(f"--push {name}: accepted is OWNER/NAME, for example me/my-adapter")
    if get_token() is None:
        raise IwloraError(
            f"--push {name}: there is no token for the hub; set HF_TOKEN, or run `hf auth login`"
        )


def push(folder: Path, name: str, private: bool = False) -> str:
    """Upload all files of a folder as one commit, and return the address of the repository.

    Args:
        folder: What was exported.
        name: OWNER/NAME; the repository is made if there is none.
        private: Whether a repository that is made is private.

    Raises:
        IwloraError: The hub cannot be reached, or refuses.
    """
    api = HfApi()
    try:
        repository = api.create_repo(name, private=private or None, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Export of iwlora")
    except Exception as error:  # of the HTTP library, which is another one in each version
        raise IwloraError(
            f"{folder} was written, and cannot be pushed to {name}: {_reason(error)}"
        ) from error
    return str(repository)


def _reason(error: Exception) -> str:
    """What an error says, with the status of the hub's answer."""
    response = getattr(error, "response", None)
    status = f"the hub answered {response.status_code}: " if response is not None else ""
    return status + truncate(" ".join(str(error).split()) or type(error).__name__)
