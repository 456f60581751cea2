"""Measurements: what the tests never time. See benchmarks/README.md."""
