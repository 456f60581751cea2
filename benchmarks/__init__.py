"""Benchmarks: measurements that the tests do not make. See benchmarks/README.md."""
