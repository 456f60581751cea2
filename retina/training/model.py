"""A torchvision ResNet with a grading head of two or three layers, from scratch or from ImageNet weights."""

from __future__ import annotations

import http.client
import pickle
import re
import urllib.error
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from retina.config import TrialConfig
from retina.errors import FULL_ERRNOS, WeightsError, as_disk_error
from retina.results.checksums import digest
from retina.training.losses import N_OUTPUTS, OutputDecoder

HEAD_WIDTHS: dict[int, tuple[int, ...]] = {2: (50,), 3: (256, 50)}
"""Hidden widths by `head_layers`. Two layers are the report's: Linear(in, 50), ReLU, Dropout, Linear(50, 5)."""
SMALL_IMAGE = 64
"""Below this many pixels a side, the stem is a 3x3 convolution without max-pool (He et al. 2016, section 4.2)."""

_NAMED_SUM = re.compile(r"-(?=\d*[a-f])([0-9a-f]{8,64})\.(?:pth|pt)$")
"""resnet18-f37072fd.pth: torch.hub's files end in the first digits of their SHA-256. A date, all decimal, is none."""

StateDict = Mapping[str, torch.Tensor]


def build(config: TrialConfig, image_size: int, weights: StateDict | None = None) -> nn.Module:
    """A grader: (B, 3, S, S) float normalised by ImageNet's mean and deviation -> raw output, (B, 5) logits mostly.

    Its attribute `reading` turns the raw output into probabilities and grades; see `retina.training.losses`.

    Args:
        config: `arch`, `head_layers`, `dropout`, `loss` and `pretrained` are used.
        image_size: side of the photographs in pixels; chooses the stem.
        weights: a torchvision state dict for `arch`; needed where `config.pretrained`, not looked at otherwise. Its
            classifier is not used, nor its stem where the photographs are small.

    Raises:
        WeightsError: when `config.pretrained` and `weights` are missing or do not fit `arch`.
    """
    net = torchvision.models.get_model(config.arch, weights=None)
    if config.pretrained:
        if weights is None:
            raise WeightsError(f"pretrained=true needs weights for {config.arch}")
        _load_backbone(net, weights, config.arch)
    if image_size < SMALL_IMAGE:
        net.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
        net.maxpool = nn.Identity()
    net.fc = head(net.fc.in_features, config)
    net.reading = OutputDecoder(config.loss)
    grader: nn.Module = net
    return grader


def weights_file_name(arch: str) -> str:
    """The file name under which torchvision publishes the default weights of `arch`."""
    return Path(torchvision.models.get_model_weights(arch).DEFAULT.url).name


def load_weights(arch: str, source: Path | None = None) -> StateDict:
    """ImageNet weights for `arch`: from `source`, else from torch's own cache, else from the network.

    Args:
        arch: a torchvision ResNet.
        source: a state dict's file, or a folder that holds one whose name begins with `arch`.

    Raises:
        WeightsError: no such file, not a state dict of `arch`, damaged, or no network; says which file belongs where.
    """
    if source is not None:
        file = _find(arch, source)
    else:
        file = Path(torch.hub.get_dir()) / "checkpoints" / weights_file_name(arch)
        if not file.is_file():
            _fetch(torchvision.models.get_model_weights(arch).DEFAULT.url, file)
    _refuse_damaged(file)
    state = _read(file)
    _check(state, arch, str(file))
    return state


def head(features: int, config: TrialConfig) -> nn.Sequential:
    """The grading head: (B, features) -> raw output, in `config.head_layers` layers with `config.dropout`."""
    layers: list[nn.Module] = []
    for width in HEAD_WIDTHS[config.head_layers]:
        layers += [nn.Linear(features, width), nn.ReLU(), nn.Dropout(config.dropout)]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, N_OUTPUTS[config.loss]))


def _load_backbone(net: nn.Module, weights: StateDict, arch: str) -> None:
    _check(weights, arch, "the given weights")
    backbone = {key: value for key, value in weights.items() if not key.startswith("fc.")}
    net.load_state_dict(backbone, strict=False)


def _check(state: StateDict, arch: str, where: str) -> None:
    with torch.device("meta"):
        expected = torchvision.models.get_model(arch, weights=None).state_dict()
    for key, tensor in expected.items():
        if key.startswith("fc.") or key.endswith("num_batches_tracked"):  # torchvision's older files lack the counters
            continue
        if key not in state:
            raise WeightsError(f"{where}: no tensor {key!r}, so these are not weights of {arch}")
        if state[key].shape != tensor.shape:
            given, allowed = tuple(state[key].shape), tuple(tensor.shape)
            raise WeightsError(f"{where}: {key!r} has the shape {given}, {arch} needs {allowed}")
        if not bool(state[key].isfinite().all()):
            raise WeightsError(f"{where}: {key!r} is not finite; the file is damaged, fetch it again")


def _refuse_damaged(file: Path) -> None:
    """Compare a file with the SHA-256 that its name ends in, if it does."""
    named = _NAMED_SUM.search(file.name)
    try:
        found = digest(file) if named else ""
    except OSError as error:
        raise as_disk_error(file, "cannot be read", error, mistake=WeightsError) from None
    if named and not found.startswith(named[1]):
        raise WeightsError(
            f"{file}: is damaged: its SHA-256 begins with {found[: len(named[1])]}, its name says {named[1]};\n"
            "fetch it again, or give other weights another name"
        )


def _find(arch: str, source: Path) -> Path:
    if source.is_file():
        return source
    if not source.is_dir():
        raise WeightsError(f"--weights {source}: no such file or folder")
    found = sorted(file for file in source.iterdir() if file.name.startswith(arch) and file.suffix in {".pth", ".pt"})
    if not found:
        raise WeightsError(f"--weights {source}: holds no file {arch}*.pth ({weights_file_name(arch)}, say)")
    exact = [file for file in found if file.name == weights_file_name(arch)]
    return exact[0] if exact else found[0]


def _fetch(url: str, file: Path) -> None:
    """Fetch `url` whole or not at all; torchvision's file names end in the first digits of their SHA-256."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), hash_prefix=file.stem.rpartition("-")[2], progress=False)
    except (OSError, http.client.HTTPException, RuntimeError) as error:  # RuntimeError: the hash is not that
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is the server's answer too
        elif isinstance(error, OSError) and error.errno in FULL_ERRNOS:  # others may be the network's
            raise as_disk_error(file.parent, f"cannot hold {file.name}", error) from None
        raise WeightsError(
            f"pretrained=true needs {file.name}, which could not be fetched: {error}\n"
            f"put that file into {file.parent}, or name a file or folder with --weights,\n"
            "or search without it: --set parameters.pretrained.value=false start=[] (retina train: -c 0 -p 0)"
        ) from None


def _read(file: Path) -> StateDict:
    try:
        state: Any = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # torch's own words advise to trust the file
        raise WeightsError(f"{file}: is no state dict, or holds more than tensors (a whole pickled model?)") from None
    except OSError as error:
        raise as_disk_error(file, "cannot be read", error, mistake=WeightsError) from None
    except Exception as error:  # torch.load raises whatever it meets
        reason = (str(error).splitlines() or ["it ends too early"])[0]
        raise WeightsError(f"{file}: cannot be read as a state dict: {reason[:160]}") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(f"{file}: is not a state dict (names to tensors), as torchvision publishes them")
    return state
