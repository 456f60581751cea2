"""Grading of photographs by an exported model, with the same preprocessing as in training.

`find_images` finds the photographs, `predict` grades them, and `write_csv` and `write_json` write the result, after
`ensure_writable` has checked that no other file is overwritten. Torch is imported only if the model is to run in it.
"""

from retina.callable_package import make_callable
from retina.predict.files import find_images
from retina.predict.grade import predict
from retina.predict.tables import ensure_writable, write_csv, write_json

__all__ = ["ensure_writable", "find_images", "predict", "write_csv", "write_json"]

make_callable(__name__)
