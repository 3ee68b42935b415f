"""An engine as it is when it was loaded from a run."""

from pathlib import Path

from onesearch.search.engine import SearchEngine


def test_a_loaded_engine_has_what_its_first_search_needs(tiny_run: Path):
    engine = SearchEngine.load(run=tiny_run)
    gathered = vars(engine.snapshot.click_features.statistics)
    assert {"_numbers", "_pairs"} <= gathered.keys()
    before = set(gathered)
    engine.search(engine.example_queries(1)[0])
    assert set(gathered) == before, "a first search gathers no more"
