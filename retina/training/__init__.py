"""One training run: network, losses, optimizer, micro-batches, epochs, and inference on a whole split.

Imports neither Ray nor Optuna. `epochs` does not import torch, so that the driver of a sweep reads results without it.
"""
