"""What the page's figures are made of: scales, colours, bins, and Grad-CAM."""

import itertools
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from report_pages import config
from torch import nn

from retina.report.page import calibration, gradcam, mistakes, plot_style
from retina.report.page.run_data import SearchedParameter
from retina.report.page.search import Scale
from retina.training.losses import N_OUTPUTS, OutputDecoder


@given(st.floats(1e-6, 1e-1), st.booleans())
def test_a_value_stands_between_the_ends_of_its_range(value: float, is_log: bool) -> None:
    scale = Scale.from_parameter(SearchedParameter("learning_rate", is_log, (1e-6, 1e-1), (), {}))
    position = scale.position({"learning_rate": value})
    assert position is not None
    assert -1e-9 <= position <= 1 + 1e-9
    if is_log:
        assert position == pytest.approx((np.log10(value) + 6) / 5)
    assert all(scale.low <= at <= scale.high for at, _ in scale.ticks())
    assert len(scale.ticks()) >= 2


def test_a_setting_that_is_not_used_has_no_place() -> None:
    momentum = Scale.from_parameter(SearchedParameter("momentum", False, (0.8, 0.99), (), {"optimizer": ("sgd",)}))
    rows = [config(number).model_dump() for number in (0, 1)]
    assert [row["optimizer"] for row in rows] == ["sgd", "adamw"]
    assert [momentum.coordinate(row) for row in rows] == [0.9, None]
    choices = Scale.from_parameter(SearchedParameter("pretrained", False, None, ("true", "false"), {}))
    assert [choices.coordinate({"pretrained": value}) for value in (True, np.False_, "False", "?")] == [
        0.0,
        1.0,
        1.0,
        None,
    ]


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> npt.NDArray[np.float64]:
    rgb = np.array(to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    xyz = TO_XYZ @ np.clip(rgb, 0, 1) / TO_XYZ.sum(axis=1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("styles", [plot_style.STATES, plot_style.SPLIT_STYLES], ids=["states", "splits"])
def test_colours_are_told_apart_by_the_colour_blind_and_never_alone(styles: dict[str, plot_style.Style]) -> None:
    for one, other in itertools.combinations(styles.values(), 2):
        for matrix in (np.eye(3), *map(np.array, BLINDNESS.values())):
            apart = lab(matrix @ linear(one.colour)) - lab(matrix @ linear(other.colour))
            assert np.linalg.norm(apart) > 20, f"{one.colour} and {other.colour}"
    assert len({style.line for style in styles.values()}) == len(styles)
    assert len({style.marker for style in styles.values()}) == len(styles)
    for style in styles.values():
        luminance = float(linear(style.colour) @ (0.2126, 0.7152, 0.0722))
        assert 1.05 / (luminance + 0.05) >= 3, f"{style.colour} on white (WCAG 2, 1.4.11)"


def test_the_table_has_the_states_colours_too() -> None:
    sheet = (Path(plot_style.__file__).parent / "templates" / "page.css").read_text()
    marked = dict(re.findall(r"\[data-mark=(\w+)\]::before {[^}]*color: (#\w+)", sheet))
    assert marked == {state: style.colour for state, style in plot_style.STATES.items()}


@given(st.lists(st.tuples(st.floats(0.2, 1), st.booleans()), min_size=1, max_size=80))
def test_every_photograph_is_in_one_bin(seen: list[tuple[float, bool]]) -> None:
    confidence, right = np.array([c for c, _ in seen]), np.array([r for _, r in seen])
    found = calibration.bins(confidence, right)
    assert sum(n for _, _, n in found) == len(seen)
    assert sum(hits for _, hits, _ in found) == right.sum()
    assert max(n for _, _, n in found) - min(n for _, _, n in found) <= 1
    means = [mean for mean, _, _ in found]
    assert all(before <= after + 1e-12 for before, after in itertools.pairwise(means))


class Spots(nn.Module):
    """Says grade 4 where a photograph has bright red in it, and grade 0 where it has blue; by stages, as a ResNet."""

    def __init__(self, fields: int = 8) -> None:
        super().__init__()
        self.layer1 = nn.AvgPool2d(64 // fields)
        self.layer2, self.layer3, self.layer4 = nn.Identity(), nn.Conv2d(3, 2, 1, bias=False), nn.ReLU()
        self.layer3.weight.data = torch.tensor([[1.0, -1.0, -1.0], [-1.0, -1.0, 1.0]])[..., None, None]
        self.fc = nn.Linear(2, 5, bias=False)
        self.fc.weight.data = torch.tensor([[-1.0, 3.0], [0, 0], [0, 0], [0, 0], [3.0, -1.0]])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        stages = self.layer4(self.layer3(self.layer2(self.layer1(images))))
        return self.fc(stages.mean(dim=(2, 3)))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 7), st.integers(0, 7), st.integers(0, 7), st.integers(0, 7))
def test_the_map_lies_where_the_evidence_is(row: int, column: int, other_row: int, other_column: int) -> None:
    image = torch.zeros(1, 3, 64, 64)
    image[0, 2, 8 * other_row : 8 * other_row + 8, 8 * other_column : 8 * other_column + 8] = 1
    image[0, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = torch.tensor([1.0, 0, 0])[:, None, None]
    images = image.repeat(2, 1, 1, 1)
    maps = gradcam.heatmaps(Spots().eval(), images, torch.tensor([4, 0]))
    assert maps.shape == (2, 8, 8)
    assert maps.min() >= 0
    red = torch.zeros(8, 8)
    red[row, column] = 1
    assert torch.equal(maps[0], red), "of grade 4 the red spot alone"
    if (row, column) != (other_row, other_column):
        assert divmod(int(maps[1].argmax()), 8) == (other_row, other_column), "of grade 0 the blue one"


def test_a_map_is_of_each_photograph_alone_and_leaves_no_trace() -> None:
    torch.manual_seed(0)
    net = Spots().requires_grad_(requires_grad=False)
    images, grades = torch.rand(3, 3, 64, 64), torch.tensor([4, 0, 4])
    together = gradcam.heatmaps(net, images, grades)
    alone = torch.cat([gradcam.heatmaps(net, images[[i]], grades[[i]]) for i in range(3)])
    assert torch.allclose(together, alone)
    assert not images.requires_grad
    assert not any(len(module._forward_hooks) for module in net.modules())
    none = gradcam.heatmaps(net, torch.zeros(1, 3, 64, 64), torch.tensor([4]))
    assert none.abs().sum() == 0, "where nothing speaks for it"


class Staged(Spots):
    """Its last stage has a single field, the one before a few."""

    def __init__(self) -> None:
        super().__init__(fields=4)
        self.layer4 = nn.AdaptiveAvgPool2d(1)


def test_the_stage_that_is_looked_at_can_say_where() -> None:
    assert gradcam.heatmaps(Staged(), torch.rand(1, 3, 64, 64), torch.tensor([4])).shape == (1, 4, 4)


@pytest.mark.parametrize("loss", N_OUTPUTS)
def test_every_kind_of_network_has_a_score_that_rises_with_the_grades_probability(loss: str) -> None:
    torch.manual_seed(0)
    net = nn.Linear(1, 1)
    net.reading = OutputDecoder(loss)  # type: ignore[assignment]
    raw = torch.randn(6, N_OUTPUTS[loss]).requires_grad_()
    grades = torch.tensor([0, 1, 2, 3, 4, 2])
    (slopes,) = torch.autograd.grad(gradcam.score(net, raw, grades).sum(), raw)
    assert torch.isfinite(slopes).all()
    with torch.no_grad():
        before, _ = OutputDecoder(loss)(raw)
        after, _ = OutputDecoder(loss)(raw + 1e-3 * slopes)
        chosen = grades[:, None]
        assert (after.gather(1, chosen) > before.gather(1, chosen)).all()


@pytest.mark.parametrize(("loss", "sure"), [("huber", 9.0), ("mse", -9.0), ("corn", 60.0)])
def test_a_sure_score_still_has_a_slope(loss: str, sure: float) -> None:
    net = nn.Linear(1, 1)
    net.reading = reading = OutputDecoder(loss)  # type: ignore[assignment]
    if reading.is_fitted:
        reading.spread.fill_(0.02)
    raw = torch.full((1, N_OUTPUTS[loss]), sure).requires_grad_()
    (slopes,) = torch.autograd.grad(gradcam.score(net, raw, reading(raw)[1]).sum(), raw)
    assert slopes.abs().max() > 0


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.floats(0.3, 1)), min_size=1, max_size=40),
    st.booleans(),
)
def test_the_surest_mistakes_come_first(seen: list[tuple[int, int, float]], tested: bool) -> None:
    rows = [
        {"split": "test" if tested else "val", "image": str(i), "grade": true, "predicted": called}
        | {f"p{grade}": sure if grade == called else (1 - sure) / 4 for grade in range(5)}
        for i, (true, called, sure) in enumerate(seen)
    ]
    split, worst = mistakes.worst(pd.DataFrame(rows), max_rows=5)
    assert split == ("test" if tested else "validation")
    wrong = sorted((sure for true, called, sure in seen if true != called), reverse=True)
    assert worst["confidence"].tolist() == wrong[:5]
    assert (worst["grade"] != worst["predicted"]).all()


def test_heat_brightens_where_it_is() -> None:
    photograph = np.full((8, 8, 3), 90, np.uint8)
    heat = np.zeros((8, 8), np.float32)
    heat[2, 3] = 1
    shown = mistakes.overlay(photograph, heat)
    assert np.unravel_index(shown.sum(axis=2).argmax(), (8, 8)) == (2, 3)
    assert (shown[0, 0] == shown[7, 7]).all()
