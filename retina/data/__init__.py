"""Data loading: label files, splits, the fundus crop, the pixel cache and augmented batches."""
