"""The best model as one folder that runs elsewhere.

`write.export` writes it, `folder.read` reads what it says of itself, `grader.load` the model for torch. Whoever grades
with onnxruntime alone imports `folder` and nothing else of here: no torch.
"""

from retina.callable_package import make_callable

make_callable(__name__)
