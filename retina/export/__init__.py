"""Export of the best model to one folder that other programs can use.

`write.export` writes the folder, `folder.read_export` reads its descriptions, and `grader.load` loads its model for
torch. `folder` imports no torch, for programs that grade with onnxruntime alone.
"""

from retina.callable_package import make_callable

make_callable(__name__)
