"""Where importance pays: runs the cells of the study, and writes what they found.

    pip install -e . -e study
    python study/run.py plan                                   # the cells, and their cost
    python study/run.py screen --glue FOLDER --minutes 60 --jobs 2
    python study/run.py confirm --glue FOLDER --minutes 60 --jobs 2
    python study/run.py report                                 # docs/results.md, from study/scores
    python study/run.py evidence                               # the table of iwlora advise

Cells are in the order in which they tell most, so that a stop anywhere leaves a whole answer. The
finished runs of each cell are kept in study/scores, from which the tables are made; a cell whose
scores are complete is not run again. A cell that was stopped goes on in the same runs folder;
elsewhere it begins anew, which is at most half an hour.
"""

from __future__ import annotations

import sys

from iwlora_study.runner.command import main

if __name__ == "__main__":
    sys.exit(main())
