"""What other libraries print while a command runs."""

from __future__ import annotations

import os
import sys
import warnings

_QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}


def show_errors_only() -> None:
    """Hide the libraries' warnings and progress bars; their errors still show.

    The libraries read the environment when they are imported, so that a command which does not
    need them need not wait for them. What the user has set in it stays.
    """
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if datasets := sys.modules.get("datasets"):  # it has read the environment already
        datasets.disable_progress_bars()
    if "transformers" in sys.modules:
        from huggingface_hub.utils import logging as hub_logging
        from transformers.utils import logging

        hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        logging.set_verbosity_error()
        logging.disable_progress_bar()
