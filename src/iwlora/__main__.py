"""``python -m iwlora``."""

import sys

from iwlora.cli import main

sys.exit(main())
