"""The exported model in torch: a network, and the conversion of its raw output to five probabilities and a grade."""

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
from retina.export.folder import CONFIG, REMEDY, WEIGHTS, CutPoints, ExportFolder, read_export
from retina.metrics.probabilities import REFERABLE_GRADE
from retina.training import model
from retina.training.inference import with_flip_tta
from retina.training.losses import get_output_decoder, log_probabilities, no_grade_unless_valid


class Grader(nn.Module):
    """The evaluated model as one module, with calibrated probabilities.

    Maps images float (B, 3, S, S), normalized, to three outputs:
        probabilities: float (B, 5), rows sum to 1; `temperature` changes their spread, not the grades.
        grade: int64 (B,), 0 to 4; -1 (`retina.metrics.probabilities.NO_GRADE`) where the network's output is not finite
            or the temperature leaves no probabilities.
        referable_score: float (B,), the probability of grade 2 or worse before the temperature, to which the operating
            point applies, see `retina.metrics.operating_point`.

    With `flips` a photograph is evaluated together with its three mirror images, as in its trial (TTA).
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
        """The cut-points of a network whose output is a score; None for other networks."""
        decoder = get_output_decoder(self.net)
        if not decoder.is_fitted:
            return None
        first, second, third, fourth = decoder.cutpoints.tolist()
        return CutPoints(cuts=(first, second, third, fourth), spread=float(decoder.spread))


@dataclass(frozen=True)
class ExportedModel:
    """An exported model: its folder, and its grader on the CPU in evaluation mode."""

    folder: ExportFolder
    grader: Grader


def load(folder: Path) -> ExportedModel:
    """Load the model of an exported folder from its weights.

    Raises:
        ResultsError: as `retina.export.folder.read_export`; or the weights are missing or damaged, or do not fit.
    """
    return load_from_folder(read_export(folder))


def load_from_folder(folder: ExportFolder) -> ExportedModel:
    """Load the model of a folder whose descriptions are already read; raises as `load`."""
    file = folder.path / WEIGHTS
    folder.verify(WEIGHTS)
    try:
        weights = safetensors.torch.load_file(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise ResultsError(f"{file}: cannot be read as weights: {first_line(error)}") from None
    description = folder.description
    grader = build_grader(description.trial, folder.preprocess.image_size, weights, file, description.temperature)
    if description.cut_points and not _are_close(description.cut_points, grader.cut_points):
        raise ResultsError(
            f"{folder.path / CONFIG}: cut_points are not those of {file.name}, {grader.cut_points};\n{REMEDY}"
        )
    return ExportedModel(folder, grader)


def _are_close(first: CutPoints, second: CutPoints | None) -> bool:
    return second is not None and np.allclose([*first.cuts, first.spread], [*second.cuts, second.spread], atol=1e-6)


def build_grader(
    trial: TrialConfig, image_size: int, weights: dict[str, torch.Tensor], file: Path, temperature: float = 1.0
) -> Grader:
    """Build a grader with these weights, in evaluation mode.

    Raises:
        ResultsError: the weights, which come from `file`, do not fit `trial`, are not finite, or their cut-points are
            not in ascending order.
    """
    with torch.device("meta"):  # spends neither time nor random numbers on weights that are replaced at once
        net = model.build(trial.model_copy(update={"pretrained": False}), image_size)
    try:
        net.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        problem = one_line(error)
        raise ResultsError(f"{file}: does not fit {trial.arch} as config.json has it: {problem}") from None
    broken = [name for name, tensor in weights.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise ResultsError(f"{file}: {broken[0]} is not finite; this model cannot grade")
    if problem := get_output_decoder(net).problem:
        raise ResultsError(f"{file}: {problem}")
    grader = Grader(net, temperature=temperature, flips=trial.flips)
    return grader.requires_grad_(requires_grad=False).eval()
