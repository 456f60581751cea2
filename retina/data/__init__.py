"""Photographs to batches: label files to a manifest, splits, the fundus crop, the pixel cache, augmented batches."""
