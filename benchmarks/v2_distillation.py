"""What the steps of V2's training bring: a grid of cells, each of at most 20 minutes, that resumes where it stopped.

    python -m benchmarks.v2_distillation run RUNS                 # every cell that is not finished
    python -m benchmarks.v2_distillation run RUNS market-1        # those whose name begins so
    python -m benchmarks.v2_distillation list RUNS                # which cells are finished
    python -m benchmarks.v2_distillation save RUNS                # finished cells and paired tests between them
    python -m benchmarks.v2_distillation render                   # docs/results/v2_distillation.md

RUNS lies outside the checkout and grows to a few gigabytes. A cell is ``DATASET-SEED/NAME``: a run folder that takes
data, encoder, SIDs and the first stages over from ``DATASET-SEED/base`` and trains its own last stage. Figures and
values of single requests stay in the cell's run folder; ``save`` takes what the page shows into
``docs/results/v2_distillation.json``. Several processes may work on RUNS.

Main metrics, declared before the first run: expected HR@10 (the true click mass in the top ten) and sampled click HR@10
of the generator alone on complex queries.
"""

import sys
from pathlib import Path

from benchmarks.grid import FILES, Grid, main
from benchmarks.v2_distillation_page import render

if __name__ == "__main__":
    main(sys.argv[1:], Grid(Path()), lambda: render(FILES), __doc__ or "")
