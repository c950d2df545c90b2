"""Where importance pays: runs the cells of the study, and writes what they found.

    pip install -e . -e study
    python study/run.py plan                                   # the cells, and their cost
    python study/run.py screen --glue FOLDER --minutes 60 --jobs 2
    python study/run.py confirm --glue FOLDER --minutes 60 --jobs 2
    python study/run.py report                                 # docs/results.md, from study/scores
    python study/run.py evidence                               # the table of iwlora advise

Cells run in the order of their numbers; ``--only 32`` runs those whose names begin so. The finished
runs of each cell are kept in study/scores, from which the tables are made; a cell whose scores are
complete is not run again. A cell that was stopped goes on in the same runs folder; elsewhere it
begins anew, which is at most 70 minutes of one core.
"""

from __future__ import annotations

import sys

from iwlora_study.runner.command import main

if __name__ == "__main__":
    sys.exit(main())
