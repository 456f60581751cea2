"""Sweeps: the only rooms that know Ray and Optuna."""
