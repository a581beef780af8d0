"""The long comparisons and benchmarks behind the chapters."""
