"""Sweeps: search, ledger and backends. The only package that imports Ray and Optuna."""
