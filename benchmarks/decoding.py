"""Constrained beam search against transformers' generate; the same as ``onesearch bench decoding --json``."""

import json
from typing import Any

from onesearch.evaluation.bench_decoding import bench_decoding


def run() -> dict[str, Any]:
    """The figures at full size."""
    return bench_decoding()


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
