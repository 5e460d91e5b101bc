"""How fast Wattle is, beside programs that only start processes: ``python -m benchmarks``, or ``make bench``."""
