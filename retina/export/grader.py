"""The exported model in torch: a network, and how its raw output becomes five probabilities and a grade."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import nn

from retina.config import TrialConfig
from retina.errors import ResultsError, first_line, one_line
from retina.export.folder import CONFIG, REMEDY, WEIGHTS, CutPoints, Folder, read
from retina.metrics.probabilities import REFERABLE_GRADE
from retina.training import model
from retina.training.inference import with_flip_tta
from retina.training.losses import get_output_decoder, log_probabilities, no_grade_unless_valid


class Grader(nn.Module):
    """What training evaluates, as one module, with calibrated probabilities.

    Images float (B, 3, S, S), normalised, to three:
        probabilities: float (B, 5), rows sum to 1; `temperature` spreads them and leaves the grades as they are.
        grade: int64 (B,), 0 to 4; -1 (`retina.metrics.probabilities.NO_GRADE`) where the network's output is not finite
            or the temperature leaves no probabilities.
        referable_score: float (B,), the probability of grade 2 or worse before the temperature, which the operating
            point looks at, see `retina.metrics.operating_point`.

    With `flips` a photograph is judged by itself and its three mirror images, as its trial was.
    """

    def __init__(self, net: nn.Module, *, temperature: float = 1.0, flips: bool = False) -> None:
        super().__init__()
        self.net = net
        self.temperature = temperature
        self.flips = flips

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Grade a batch."""
        logs, grades = log_probabilities(
            get_output_decoder(self.net), with_flip_tta(self.net, images, flips=self.flips).float()
        )
        probabilities = (logs / self.temperature).softmax(dim=1)
        grades = no_grade_unless_valid(grades, probabilities)
        return probabilities, grades, logs[:, REFERABLE_GRADE:].exp().sum(dim=1)

    @property
    def cut_points(self) -> CutPoints | None:
        """Of a network whose output is a score."""
        reading = get_output_decoder(self.net)
        if not reading.is_fitted:
            return None
        first, second, third, fourth = reading.cutpoints.tolist()
        return CutPoints(cuts=(first, second, third, fourth), spread=float(reading.spread))


@dataclass(frozen=True)
class Exported:
    """An exported model: its folder, and its grader on the CPU and in evaluation mode."""

    folder: Folder
    grader: Grader


def load(folder: Path) -> Exported:
    """The model in an exported folder, from its weights.

    Raises:
        ResultsError: as `retina.export.folder.read`; or there are no weights, they are damaged or do not fit.
    """
    return of_folder(read(folder))


def of_folder(folder: Folder) -> Exported:
    """The model of a folder whose descriptions are read; raises as `load`."""
    file = folder.path / WEIGHTS
    folder.verify(WEIGHTS)
    try:
        weights = safetensors.torch.load_file(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise ResultsError(f"{file}: cannot be read as weights: {first_line(error)}") from None
    described = folder.description
    grader = build(described.trial, folder.preprocess.image_size, weights, file, described.temperature)
    if described.cut_points and not _alike(described.cut_points, grader.cut_points):
        raise ResultsError(
            f"{folder.path / CONFIG}: cut_points are not those of {file.name}, {grader.cut_points};\n{REMEDY}"
        )
    return Exported(folder, grader)


def _alike(one: CutPoints, other: CutPoints | None) -> bool:
    return other is not None and np.allclose([*one.cuts, one.spread], [*other.cuts, other.spread], atol=1e-6)


def build(
    trial: TrialConfig, image_size: int, weights: dict[str, torch.Tensor], file: Path, temperature: float = 1.0
) -> Grader:
    """A grader with these weights, in evaluation mode.

    Raises:
        ResultsError: the weights, which come from `file`, do not fit `trial`, are not finite, or their cut-points do
            not ascend.
    """
    with torch.device("meta"):  # no time and no random numbers for weights that are replaced at once
        net = model.build(trial.model_copy(update={"pretrained": False}), image_size)
    try:
        net.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        problem = one_line(error)
        raise ResultsError(f"{file}: does not fit {trial.arch} as config.json has it: {problem}") from None
    broken = [name for name, tensor in weights.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise ResultsError(f"{file}: {broken[0]} is not finite; this model grades nothing")
    if problem := get_output_decoder(net).problem:
        raise ResultsError(f"{file}: {problem}")
    grader = Grader(net, temperature=temperature, flips=trial.flips)
    return grader.requires_grad_(requires_grad=False).eval()
