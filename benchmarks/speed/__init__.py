"""Speed beside a peer that is measured in the same run: ``python -m benchmarks.speed NAME``."""
