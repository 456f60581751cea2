"""What can go wrong, by name.

Every error that a user can cause is a `RetinaError` with a message of one to three lines that names the file, the key
or row, the value, and what is allowed. The command line prints that message and exits with 2; everything else is our
defect and keeps its traceback. Each child is also the fitting builtin, so that library users may catch either.
"""


class RetinaError(Exception):
    """Root of all errors that this project raises on purpose."""

    exit_code = 2


class SpecError(RetinaError, ValueError):
    """A sweep file, a command-line value or a configuration that cannot be used."""


class DataError(RetinaError, ValueError):
    """Photographs or labels that are missing, unreadable or contradict each other."""


class PhotographsAbsentError(DataError):
    """Label files whose photographs are not there, not one of them."""


class WorkerError(DataError):
    """A process that worked on photographs died before it was done; the photographs may be fine."""

    exit_code = 1


class WeightsError(RetinaError, OSError):
    """Pretrained weights that are not there and cannot be fetched, or do not fit the model."""


class ResultsError(RetinaError, OSError):
    """A results folder that is missing, taken, or not what was asked for."""


class ModelOutputError(RetinaError, ValueError):
    """A model whose output is not finite, or no probabilities: of such nothing is graded or measured."""

    exit_code = 1


class TrainError(RetinaError, RuntimeError):
    """A training run that cannot go on: a non-finite loss, or no memory for one batch."""

    exit_code = 1
