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
"""Hidden widths by `head_layers`. Two layers are the report's head: Linear(in, 50), ReLU, Dropout, Linear(50, 5)."""
SMALL_IMAGE = 64
"""Side in pixels below which the stem is a 3x3 convolution without max-pool (He et al. 2016, section 4.2)."""

_SHA256_IN_NAME = re.compile(r"-(?=\d*[a-f])([0-9a-f]{8,64})\.(?:pth|pt)$")
"""The names of torch.hub's files end in the first digits of their SHA-256, for example resnet18-f37072fd.pth.

An ending with decimal digits alone is a date.
"""

StateDict = Mapping[str, torch.Tensor]


def build(config: TrialConfig, image_size: int, weights: StateDict | None = None) -> nn.Module:
    """Build a grader: (B, 3, S, S) float -> raw output (B, K), for most losses five logits.

    The input is normalised by ImageNet's mean and standard deviation. The attribute `reading` of the grader decodes the
    raw output to probabilities and grades; see `retina.training.losses`.

    Args:
        config: `arch`, `head_layers`, `dropout`, `loss` and `pretrained` are used.
        image_size: side of the photographs in pixels; decides the stem.
        weights: a torchvision state dict for `arch`; required if `config.pretrained`, ignored otherwise. Its classifier
            is not used, nor is its stem for small photographs.

    Raises:
        WeightsError: `config.pretrained` is true and `weights` is missing or does not fit `arch`.
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
    net.fc = build_head(net.fc.in_features, config)
    net.reading = OutputDecoder(config.loss)
    grader: nn.Module = net
    return grader


def weights_file_name(arch: str) -> str:
    """Return the file name under which torchvision publishes the default weights of `arch`."""
    return Path(torchvision.models.get_model_weights(arch).DEFAULT.url).name


def load_weights(arch: str, source: Path | None = None) -> StateDict:
    """Load ImageNet weights for `arch`: from `source`, else from torch's own cache, else from the internet.

    Args:
        arch: a torchvision ResNet.
        source: file of a state dict, or a folder that holds one whose name begins with `arch`.

    Raises:
        WeightsError: no such file, not a state dict of `arch`, damaged, or no internet; the message says which file
            is needed, and where.
    """
    if source is not None:
        file = _find_file(arch, source)
    else:
        file = Path(torch.hub.get_dir()) / "checkpoints" / weights_file_name(arch)
        if not file.is_file():
            _download(torchvision.models.get_model_weights(arch).DEFAULT.url, file)
    _validate_sha256(file)
    state = _read_state_dict(file)
    _validate_state_dict(state, arch, str(file))
    return state


def build_head(features: int, config: TrialConfig) -> nn.Sequential:
    """Build the grading head: (B, features) -> raw output, in `config.head_layers` layers with `config.dropout`."""
    layers: list[nn.Module] = []
    for width in HEAD_WIDTHS[config.head_layers]:
        layers += [nn.Linear(features, width), nn.ReLU(), nn.Dropout(config.dropout)]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, N_OUTPUTS[config.loss]))


def _load_backbone(net: nn.Module, weights: StateDict, arch: str) -> None:
    _validate_state_dict(weights, arch, "the given weights")
    backbone = {key: value for key, value in weights.items() if not key.startswith("fc.")}
    net.load_state_dict(backbone, strict=False)


def _validate_state_dict(state: StateDict, arch: str, where: str) -> None:
    """Raise WeightsError unless `state` holds finite weights of `arch`; the message begins with `where`."""
    with torch.device("meta"):
        expected = torchvision.models.get_model(arch, weights=None).state_dict()
    for key, tensor in expected.items():
        if key.startswith("fc.") or key.endswith("num_batches_tracked"):  # torchvision's older files lack the counters
            continue
        if key not in state:
            raise WeightsError(f"{where}: no tensor {key!r}, so these are not weights of {arch}")
        if state[key].shape != tensor.shape:
            actual, required = tuple(state[key].shape), tuple(tensor.shape)
            raise WeightsError(f"{where}: {key!r} has the shape {actual}, {arch} needs {required}")
        if not bool(state[key].isfinite().all()):
            raise WeightsError(f"{where}: {key!r} is not finite; the file is damaged, download it again")


def _validate_sha256(file: Path) -> None:
    """Raise WeightsError if the SHA-256 of a file does not begin with the digits in its name, if it has any."""
    named = _SHA256_IN_NAME.search(file.name)
    try:
        actual = digest(file) if named else ""
    except OSError as error:
        raise as_disk_error(file, "cannot be read", error, mistake=WeightsError) from None
    if named and not actual.startswith(named[1]):
        raise WeightsError(
            f"{file}: is damaged: its SHA-256 begins with {actual[: len(named[1])]}, its name says {named[1]};\n"
            "download it again, or give other weights another name"
        )


def _find_file(arch: str, source: Path) -> Path:
    if source.is_file():
        return source
    if not source.is_dir():
        raise WeightsError(f"--weights {source}: no such file or folder")
    files = sorted(file for file in source.iterdir() if file.name.startswith(arch) and file.suffix in {".pth", ".pt"})
    if not files:
        raise WeightsError(f"--weights {source}: holds no file {arch}*.pth, for example {weights_file_name(arch)}")
    exact = [file for file in files if file.name == weights_file_name(arch)]
    return exact[0] if exact else files[0]


def _download(url: str, file: Path) -> None:
    """Download `url` completely or not at all; torchvision's file names end in the first digits of their SHA-256."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), hash_prefix=file.stem.rpartition("-")[2], progress=False)
    except (OSError, http.client.HTTPException, RuntimeError) as error:  # RuntimeError: another hash
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the server's response
        elif isinstance(error, OSError) and error.errno in FULL_ERRNOS:  # other OSErrors may come from the network
            raise as_disk_error(file.parent, f"cannot hold {file.name}", error) from None
        raise WeightsError(
            f"pretrained=true needs {file.name}, which could not be downloaded: {error}\n"
            f"put that file into {file.parent}, or name a file or folder with --weights,\n"
            "or search without it: --set parameters.pretrained.value=false start=[] (retina train: -c 0 -p 0)"
        ) from None


def _read_state_dict(file: Path) -> StateDict:
    try:
        state: Any = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # torch's own message advises to trust the file
        raise WeightsError(f"{file}: is no state dict, or holds more than tensors (a whole pickled model?)") from None
    except OSError as error:
        raise as_disk_error(file, "cannot be read", error, mistake=WeightsError) from None
    except Exception as error:  # torch.load raises errors of any type
        reason = (str(error).splitlines() or ["it ends too early"])[0]
        raise WeightsError(f"{file}: cannot be read as a state dict: {reason[:160]}") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(f"{file}: is not a state dict (names to tensors), as torchvision publishes them")
    return state
