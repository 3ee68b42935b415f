"""What the generator is worth, alone and in the engine, on four data sets: flagship runs and trials of one setting.

    python -m benchmarks.generator run RUNS                 # every cell that is not finished, in the order of worth
    python -m benchmarks.generator run RUNS toys-0/paper    # those whose name begins so
    python -m benchmarks.generator list RUNS                # which cells are finished
    python -m benchmarks.generator save RUNS                # finished cells, and paired tests pooled over their seeds
    python -m benchmarks.generator render                   # docs/results/generator.md and its charts

RUNS lies outside the checkout; the real sets lie in $ONESEARCH_DATA. A cell is ``DATASET-SEED/NAME``, a run folder that
goes on in the middle after a kill. ``flagship`` is the shipped configuration, a whole run of at most three hours; every
other cell is a trial of at most forty minutes that takes over the flagship's stages as far as they are the same.
Figures and values of single requests stay in the cells; ``save`` takes what the page shows into
``docs/results/generator.json``. Several processes may work on RUNS.
"""

import sys
from pathlib import Path

from benchmarks.generator_grid import FILES, GeneratorGrid
from benchmarks.generator_page import render
from benchmarks.grid import main

if __name__ == "__main__":
    main(sys.argv[1:], GeneratorGrid(Path()), lambda: render(FILES), __doc__ or "")
