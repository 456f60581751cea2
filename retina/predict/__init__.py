"""Grades of photographs by an exported model, on the same path from file to probability as in training.

`images` finds the photographs, `predict` grades them, `write_csv` and `write_json` keep what it says. Nothing here
imports torch unless the model is to run in it.
"""

from retina.predict.files import images
from retina.predict.grade import predict
from retina.predict.tables import write_csv, write_json

__all__ = ["images", "predict", "write_csv", "write_json"]
