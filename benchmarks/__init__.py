"""Speed, load and quality studies; nothing in the product needs them. Run one as ``python -m benchmarks.NAME``."""
