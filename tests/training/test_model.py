"""The graders: their shapes, heads and stems, and ImageNet's weights really in them."""

import hashlib
import http.server
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision
from torch import nn

from retina.config import TrialConfig
from retina.errors import WeightsError
from retina.training import model

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    """A state dict of ResNet18 as torchvision publishes them, from a seed of its own."""
    torch.manual_seed(7)
    return dict(torchvision.models.resnet18(weights=None).state_dict())


@pytest.fixture(scope="module")
def saved(state: State, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "resnet18-mine.pth"
    torch.save(state, file)
    return file


@pytest.fixture
def named(saved: Path, tmp_path: Path) -> Path:
    """Weights whose name ends in their SHA-256, as torchvision's do."""
    content = saved.read_bytes()
    while True:
        digest = hashlib.sha256(content).hexdigest()[:8]
        if set(digest) & set("abcdef"):
            break
        content += b"\0"  # a zip file may have a comment behind it
    file = tmp_path / f"resnet18-{digest}.pth"
    file.write_bytes(content)
    return file


def test_weights_are_those_that_their_name_says(named: Path) -> None:
    model.load_weights("resnet18", named)
    content = bytearray(named.read_bytes())
    content[len(content) // 2] ^= 1
    named.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{named.name}: is damaged: its SHA-256 begins with"):
        model.load_weights("resnet18", named)
    dated = named.rename(named.with_name("resnet18-20240131.pth"))
    model.load_weights("resnet18", dated)


def test_weights_that_are_not_finite_are_refused(state: State, tmp_path: Path) -> None:
    torch.save({**state, "layer1.0.conv1.weight": state["layer1.0.conv1.weight"] * torch.nan}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"x\.pth: 'layer1.0.conv1.weight' is not finite"):
        model.load_weights("resnet18", tmp_path / "x.pth")


def build(size: int = 64, weights: State | None = None, **changed: object) -> nn.Module:
    config = TrialConfig.model_validate({"pretrained": weights is not None, **changed})
    return model.build(config, size, weights)


def refused(arch: str, source: Path | None) -> str:
    with pytest.raises(WeightsError) as caught:
        model.load_weights(arch, source)
    said = str(caught.value)
    assert len(said.splitlines()) <= 3
    return said


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_every_architecture_gives_five_logits(arch: str) -> None:
    with torch.device("meta"):
        net = build(64, arch=arch)
        assert net(torch.zeros(2, 3, 64, 64)).shape == (2, 5)
    depths = {"resnet18": 18, "resnet34": 34, "resnet50": 50, "resnet101": 101}
    convolutions = [name for name, _ in net.named_modules() if "conv" in name]
    assert len(convolutions) + 1 == depths[arch]


@pytest.mark.parametrize("size", [16, 63, 64, 96])
def test_a_grader_takes_photographs_of_its_size(size: int) -> None:
    assert build(size).eval()(torch.zeros(1, 3, size, size)).shape == (1, 5)


@pytest.mark.parametrize("size", [16, 28, 63])
def test_small_photographs_get_a_stem_that_keeps_them_large(size: int) -> None:
    net = build(size)
    stem = net.conv1
    assert isinstance(stem, nn.Conv2d)
    assert (stem.kernel_size, stem.stride, stem.padding, stem.bias) == ((3, 3), (1, 1), (1, 1), None)
    assert isinstance(net.maxpool, nn.Identity)


def test_from_64_pixels_on_the_stem_is_torchvisions() -> None:
    net = build(64)
    stem = net.conv1
    assert isinstance(stem, nn.Conv2d)
    assert (stem.kernel_size, stem.stride) == ((7, 7), (2, 2))
    assert isinstance(net.maxpool, nn.MaxPool2d)


def described(head: nn.Module) -> list[object]:
    return [
        (layer.in_features, layer.out_features)
        if isinstance(layer, nn.Linear)
        else layer.p
        if isinstance(layer, nn.Dropout)
        else type(layer)
        for layer in head.children()
    ]


def test_a_head_of_two_layers_is_the_reports() -> None:
    assert described(build().fc) == [(512, 50), nn.ReLU, 0.25, (50, 5)]


def test_a_head_of_three_layers_has_one_more_hidden_layer() -> None:
    net = build(head_layers=3, dropout=0.5)
    assert described(net.fc) == [(512, 256), nn.ReLU, 0.5, (256, 50), nn.ReLU, 0.5, (50, 5)]


def test_a_deeper_backbone_gets_a_wider_head() -> None:
    with torch.device("meta"):
        assert described(build(arch="resnet50").fc)[0] == (2048, 50)


def test_pretrained_weights_are_in_the_backbone_and_not_in_the_head(state: State) -> None:
    inside = build(64, state).state_dict()
    assert all(torch.equal(inside[key], tensor) for key, tensor in state.items() if not key.startswith("fc."))
    assert {key for key in inside if key.startswith("fc.")}.isdisjoint(state)


def test_a_small_stem_keeps_the_pretrained_layers_behind_it(state: State) -> None:
    inside = build(32, state).state_dict()
    assert inside["conv1.weight"].shape == (64, 3, 3, 3)
    kept = [key for key in state if not key.startswith(("fc.", "conv1."))]
    assert all(torch.equal(inside[key], state[key]) for key in kept)
    assert {key.split(".")[0] for key in kept} == {"bn1", "layer1", "layer2", "layer3", "layer4"}


def test_weights_are_not_looked_at_without_pretrained(state: State) -> None:
    net = model.build(TrialConfig(pretrained=False), 64, state)
    assert not torch.equal(net.state_dict()["conv1.weight"], state["conv1.weight"])


def test_pretrained_without_weights_is_refused() -> None:
    with pytest.raises(WeightsError, match="pretrained=true needs weights for resnet18"):
        model.build(TrialConfig(), 64)


def test_weights_of_another_architecture_are_refused_by_build_too(state: State) -> None:
    with pytest.raises(WeightsError, match="these are not weights of resnet34"):
        build(64, state, arch="resnet34")


def test_weights_are_loaded_from_a_file_of_any_name(saved: Path, state: State) -> None:
    assert torch.equal(model.load_weights("resnet18", saved)["conv1.weight"], state["conv1.weight"])


def test_weights_without_batch_norms_counters_fit(state: State, tmp_path: Path) -> None:
    # torchvision's own files stem from a time when there were none
    old = {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    net = build(64, dict(model.load_weights("resnet18", tmp_path / "old.pth")))
    assert torch.equal(net.state_dict()["layer4.1.bn2.running_var"], state["layer4.1.bn2.running_var"])


def test_the_real_weights_fit(shared: Path) -> None:
    real = model.load_weights("resnet18", shared / "weights")
    net = build(224, dict(real))
    assert torch.equal(net.state_dict()["layer3.1.conv2.weight"], real["layer3.1.conv2.weight"])


def test_a_folder_gives_the_file_of_the_architecture(
    state: State, named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torchvisions = named.rename(named.with_suffix(".elsewhere"))
    torch.save({**state, "conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "resnet18-a.pth")
    (tmp_path / "resnet34-a.pth").write_bytes(b"not looked at")
    (tmp_path / "resnet18.txt").write_text("not looked at")
    assert not model.load_weights("resnet18", tmp_path)["conv1.weight"].any()
    torchvisions.rename(named)
    monkeypatch.setattr(model, "weights_file_name", lambda _: named.name)  # torchvision's own name is preferred
    assert model.load_weights("resnet18", tmp_path)["conv1.weight"].any()


def test_a_folder_without_the_architecture_is_refused(saved: Path) -> None:
    said = refused("resnet50", saved.parent)
    assert said == f"--weights {saved.parent}: holds no file resnet50*.pth, for example resnet50-11ad3fa6.pth"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert refused("resnet18", tmp_path / "no.pth") == f"--weights {tmp_path / 'no.pth'}: no such file or folder"


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 cut short", b"\x80\x02"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    said = refused("resnet18", tmp_path / "a.pth")
    assert said.startswith((f"{tmp_path / 'a.pth'}: cannot be read", f"{tmp_path / 'a.pth'}: is no state dict"))


def test_a_file_that_was_cut_short_is_refused(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(saved.read_bytes()[:-1000])
    assert "cannot be read as a state dict" in refused("resnet18", tmp_path / "a.pth")


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(1, 1), tmp_path / "a.pth")
    assert "a whole pickled model?" in refused("resnet18", tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps(Path("b"), protocol=2))
    assert "a whole pickled model?" in refused("resnet18", tmp_path / "b.pth")


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"state_dict": {"conv1.weight": torch.zeros(1)}}])
def test_something_else_than_names_and_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pth")
    assert "is not a state dict (names to tensors)" in refused("resnet18", tmp_path / "a.pth")


def test_weights_of_another_architecture_are_refused_by_tensor_and_shapes(saved: Path) -> None:
    said = refused("resnet50", saved)
    assert said == f"{saved}: 'layer1.0.conv1.weight' has the shape (64, 64, 3, 3), resnet50 needs (64, 64, 1, 1)"
    assert (
        refused("resnet34", saved)
        == f"{saved}: no tensor 'layer1.2.conv1.weight', so these are not weights of resnet34"
    )


Published = tuple[dict[str, bytes], str]


@pytest.fixture
def published() -> Iterator[Published]:
    """What a server on this machine hands out by path, and its address."""
    files: dict[str, bytes] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content.removesuffix(b"...cut short"))

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield files, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's cache of downloads, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "hub" / "checkpoints"


def point_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torchvision.models, "get_model_weights", lambda _: SimpleNamespace(DEFAULT=SimpleNamespace(url=url))
    )


def test_weights_are_fetched_once(
    published: Published, torch_home: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, address = published
    content = saved.read_bytes()
    name = f"resnet18-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    files[f"/{name}"] = content
    point_to(f"{address}/{name}", monkeypatch)
    first = model.load_weights("resnet18")
    assert (torch_home / name).read_bytes() == content
    files.clear()
    second = model.load_weights("resnet18")
    assert torch.equal(first["conv1.weight"], second["conv1.weight"])


@pytest.mark.parametrize(
    ("path", "reason"),
    [("gone", "404"), ("changed", "invalid hash value"), ("cut", "invalid hash value|incomplete|IncompleteRead")],
)
def test_what_is_not_fetched_whole_is_not_taken_for_weights(
    published: Published, torch_home: Path, monkeypatch: pytest.MonkeyPatch, path: str, reason: str
) -> None:
    files, address = published
    name = f"resnet18-{hashlib.sha256(b'whole...cut short').hexdigest()[:8]}.pth"
    files |= {f"/changed/{name}": b"something else", f"/cut/{name}": b"whole...cut short"}
    point_to(f"{address}/{path}/{name}", monkeypatch)
    with pytest.raises(WeightsError, match=reason) as caught:
        model.load_weights("resnet18")
    assert list(torch_home.iterdir()) == []
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"pretrained=true needs {name}, which could not be downloaded: ")
    assert lines[1] == f"put that file into {torch_home}, or name a file or folder with --weights,"
    assert lines[2].startswith("or search without it: --set parameters.pretrained")


def test_without_a_network_the_file_and_its_place_are_told(
    published: Published, torch_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to("http://127.0.0.1:1/resnet18-00000000.pth", monkeypatch)  # nobody listens there
    said = refused("resnet18", None)
    assert "resnet18-00000000.pth" in said
    assert str(torch_home) in said


def test_a_damaged_download_of_somebody_else_is_named(torch_home: Path) -> None:
    torch_home.mkdir(parents=True)
    file = torch_home / model.weights_file_name("resnet18")
    file.write_bytes(b"\x80\x02")
    assert refused("resnet18", None).startswith(f"{file}: is damaged: its SHA-256 begins with ")
