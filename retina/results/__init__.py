"""The results folder and the files in it: written whole or not at all, checked when they are read.

Nothing that is imported here by itself needs torch, so that graded photographs are written without it.
"""

from retina.results.files import write_bytes, write_csv, write_frame, write_json, write_text
from retina.results.run_folder import RunFolder

__all__ = ["RunFolder", "write_bytes", "write_csv", "write_frame", "write_json", "write_text"]
