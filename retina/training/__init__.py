"""One training run: network, losses, optimizer, micro-batches, epochs, and inference on a whole split.

Imports neither Ray nor Optuna. `epochs` imports no torch.
"""
