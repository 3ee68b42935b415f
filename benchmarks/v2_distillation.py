"""What the steps of V2's training bring: a grid of cells, each of at most 20 minutes, that resumes where it stopped.

    python -m benchmarks.v2_distillation run RUNS                 # every cell that is not finished
    python -m benchmarks.v2_distillation run RUNS market-1        # those whose name begins so
    python -m benchmarks.v2_distillation list RUNS                # which cells are finished
    python -m benchmarks.v2_distillation compare                  # paired tests between finished cells
    python -m benchmarks.v2_distillation render                   # docs/results/v2_distillation.md

RUNS lies outside the checkout and grows to a few gigabytes. A cell is ``DATASET-SEED/NAME``: a run folder that takes
data, encoder, SIDs and the first stages over from ``DATASET-SEED/base`` and trains its own last stage. Reports of cells
go to ``docs/results/v2_distillation/``, values of single requests, which paired tests need, to ``values/`` there.
Several processes may work on RUNS.

Main metrics, declared before the first run: expected HR@10 (the true click mass in the top ten) and sampled click HR@10
of the generator alone on complex queries.
"""

import sys
from pathlib import Path

from benchmarks.grid import FOLDER, Grid, main
from benchmarks.v2_distillation_page import render

if __name__ == "__main__":
    main(sys.argv[1:], Grid(Path()), lambda: render(FOLDER), __doc__ or "")
