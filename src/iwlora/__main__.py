"""``python -m iwlora``."""

import contextlib
import os
import sys

with contextlib.suppress(FileNotFoundError):  # a folder that was removed has no modules
    if sys.path[:1] == [os.getcwd()] and not getattr(sys.flags, "safe_path", False):
        del sys.path[0]  # -m put it there, and the modules in it are not ours

from iwlora.cli import main

sys.exit(main())
