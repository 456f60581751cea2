"""The splits of a data set."""

SPLITS = ("train", "val", "test")
"""The values of every column "split", in the order in which they are shown."""
EVALUATED_SPLITS = ("val", "test")
"""The splits on which models are evaluated: the keys of metrics.json."""
SPLIT_NAMES = {"val": "validation", "test": "test"}
"""The names of the evaluated splits in text."""
