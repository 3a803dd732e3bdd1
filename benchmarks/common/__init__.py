"""What all benchmarks share: where results come from, pages with tables in them, the look of plots."""
