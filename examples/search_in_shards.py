"""One catalogue in several engines: each process has a part of the items, and all of them find the same page.

python examples/search_in_shards.py runs/demo "red dress"                            # one engine
torchrun --nproc-per-node 2 examples/search_in_shards.py runs/demo "red dress"       # two shards
"""

import sys
from pathlib import Path

from onesearch import load_engine
from onesearch.common.processes import joined
from onesearch.search.shards import WHOLE, ProcessShards


def main(run: Path, query: str) -> None:
    """Print the first page, once."""
    with joined() as job:
        engine = load_engine(run).shard(ProcessShards() if job.world > 1 else WHOLE)
        page = engine.search(query, k=5)  # every process asks for the same
        if job.first:
            print(f"{len(engine)} items, {len(engine.snapshot.index)} of them in this process")
            for hit in page:
                print(f"{hit.score:8.3f}  {hit.item_id:10}{hit.item.title}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
