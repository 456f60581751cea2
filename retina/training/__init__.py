"""One training run: network, losses, optimizer, micro-batches, epochs, and a network on a whole split.

Knows nothing of Ray or Optuna. `epochs` imports no torch, so that a driver of sweeps reads results without it.
"""
