"""Grades of photographs by an exported model, on the same path from file to probability as in training.

`images` finds the photographs, `predict` grades them, `write_csv` and `write_json` keep what it says, where
`refuse_taken` sees nothing else. Nothing here
imports torch unless the model is to run in it.
"""

from retina.callable_package import make_callable
from retina.predict.files import images
from retina.predict.grade import predict
from retina.predict.tables import refuse_taken, write_csv, write_json

__all__ = ["images", "predict", "refuse_taken", "write_csv", "write_json"]

make_callable(__name__)
