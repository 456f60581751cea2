"""Batches: every photograph once, the same ones for the same seed, changed freshly each epoch, never on the disk."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_dataset import AUGMENTATIONS, CPU, part

from retina.data import loader
from retina.data.loader import (
    MEAN,
    STD,
    Augmentation,
    BatchPlan,
    SplitView,
    apply_augmentation,
    derive_seed,
    draw_augmentation,
    load,
    plan_batches,
    to_float,
)

Batch = tuple[torch.Tensor, torch.Tensor]


def numbered(n: int, size: int = 4) -> SplitView:
    """Photographs whose every pixel is their number, in every second row of the array."""
    pixels = np.repeat(np.arange(2 * n, dtype=np.uint8), size * size * 3).reshape(2 * n, size, size, 3)
    rows = np.arange(0, 2 * n, 2)
    return SplitView(pixels, rows, rows % 5)


def numbers(images: torch.Tensor) -> list[int]:
    """Which photographs of `numbered` these are, after normalisation."""
    return (images[:, 0, 0, 0] * STD[0] + MEAN[0]).mul(255).round().int().tolist()


def epoch(
    of: SplitView, number: int = 1, *, seed: int = 0, augmentation: str = "none", batch_size: int = 4
) -> list[Batch]:
    drawing = plan_batches(of, batch_size=batch_size, augmentation=augmentation, seed=seed, epoch=number)
    return [load(of, drawn, CPU) for drawn in drawing]


def plain(of: SplitView) -> Batch:
    """All of it, in its order, not augmented."""
    return load(of, BatchPlan(np.arange(len(of))), CPU)


def same(one: list[Batch], other: list[Batch]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in pairs)


def random_images(count: int = 3, size: int = 8) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 20), batch_size=st.integers(1, 25), number=st.integers(1, 5))
def test_an_epoch_holds_every_photograph_once_with_its_grade(n: int, batch_size: int, number: int) -> None:
    of = numbered(n)
    seen = epoch(of, number, batch_size=batch_size)
    assert sorted(which for images, _ in seen for which in numbers(images)) == of.rows.tolist()
    assert all([which % 5 for which in numbers(images)] == grades.tolist() for images, grades in seen)
    sizes = [len(grades) for _, grades in seen]
    assert len(sizes) == -(-n // batch_size)
    assert sizes[:-2] == [batch_size] * (len(sizes) - 2)
    if len(sizes) > 1:
        last = sum(sizes[-2:])
        is_small = 2 * (last - batch_size) < batch_size  # then it would be a step by a few, just before validation
        assert sizes[-2:] == ([last - last // 2, last // 2] if is_small else [batch_size, last - batch_size])


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_seed_and_epoch_decide_everything(kind: str) -> None:
    of = part([0, 1, 2, 3, 4, 0, 1])
    torch.manual_seed(1)
    first = epoch(of, 3, seed=5, augmentation=kind)
    torch.manual_seed(2)
    assert same(first, epoch(of, 3, seed=5, augmentation=kind))
    assert not same(first, epoch(of, 4, seed=5, augmentation=kind))
    assert not same(first, epoch(of, 3, seed=6, augmentation=kind))


def test_each_epoch_has_an_order_of_its_own() -> None:
    orders = {
        tuple(numbers(images)) for number in range(1, 6) for images, _ in epoch(numbered(20), number, batch_size=20)
    }
    assert len(orders) == 5


@pytest.mark.parametrize("kind", ["flip", "rotate", "full"])
def test_augmentation_is_fresh_each_epoch(kind: str) -> None:
    photograph = part([2])  # alone, so that nothing but its augmentation can differ
    seen = {epoch(photograph, number, augmentation=kind)[0][0].numpy().tobytes() for number in range(1, 13)}
    # of 12 draws of two flips it is 1 in 10^9 to see less than three of the four
    assert len(seen) >= (3 if kind == "flip" else 12)


def test_without_augmentation_a_photograph_stays_as_it_is() -> None:
    photograph = part([2])
    assert same(epoch(photograph), [plain(photograph)])


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_a_batch_in_pieces_is_the_whole_batch(kind: str) -> None:
    of = part([0, 1, 2, 3, 4, 0, 1], 20, beside=2)
    (drawn,) = plan_batches(of, batch_size=7, augmentation=kind, seed=3, epoch=1)
    cut = [drawn[start : start + 3] for start in range(0, 7, 3)]
    assert [len(piece) for piece in cut] == [3, 3, 1]
    images, grades = zip(*(load(of, piece, CPU) for piece in cut), strict=True)
    whole, all_grades = load(of, drawn, CPU)
    assert torch.equal(torch.cat(images), whole)
    assert torch.equal(torch.cat(grades), all_grades)


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_the_pixels_file_is_never_written_to(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "pixels.npy"
    np.save(file, part([0, 1, 2, 3, 4]).pixels)
    before = file.read_bytes()
    mapped: npt.NDArray[np.uint8] = np.load(file, mmap_mode="r+")  # writable: a write would show
    of = SplitView(mapped, np.arange(5), np.arange(5))
    for images, _ in [*epoch(of, augmentation=kind), plain(of)]:
        images.zero_()
    mapped.flush()
    assert file.read_bytes() == before


def test_a_read_only_map_is_read_without_a_warning(tmp_path: Path) -> None:
    np.save(tmp_path / "pixels.npy", part([0, 1]).pixels)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    assert len(epoch(SplitView(mapped, np.arange(2), np.arange(2)))) == 1


def test_what_is_not_augmented_is_loaded_as_it_is_and_in_the_order_asked_for() -> None:
    of = part([4, 0, 3, 1, 2], beside=3)
    chosen = np.array([1, 0, 4, 2, 3])
    images, grades = load(of, BatchPlan(chosen), CPU)
    assert grades.tolist() == [0, 4, 2, 3, 1]
    wanted = (of.pixels[of.rows[chosen]] / 255 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(images.permute(0, 2, 3, 1).numpy(), wanted, atol=1e-5)


def test_conversion_and_normalisation_are_exact_at_the_ends() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    floats = to_float(pixels)
    assert floats.flatten().tolist() == [0.0, pytest.approx(0.2), 1.0]
    assert floats.dtype == torch.float32
    normal = loader.normalise(floats).flatten().tolist()
    assert normal == pytest.approx([(0 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (1 - 0.406) / 0.225])


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_batches_lie_channels_last(kind: str) -> None:
    (images, grades), *_ = epoch(part([0, 1, 2, 3]), augmentation=kind)
    assert images.shape == (4, 3, 16, 16)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert grades.dtype == torch.int64


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_the_same_generator_draws_the_same_choices(kind: str) -> None:
    one, other = draw_augmentation(kind, 6, generator(3)), draw_augmentation(kind, 6, generator(3))
    for name in ("flips", "affine", "colour"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None and b is None) or torch.equal(a, b)


def test_each_kind_draws_what_it_is_named_for() -> None:
    drawn = {kind: draw_augmentation(kind, 1, generator()) for kind in AUGMENTATIONS}
    present = {
        kind: [name for name in ("flips", "affine", "colour") if getattr(one, name) is not None]
        for kind, one in drawn.items()
    }
    assert present == {
        "none": [],
        "flip": ["flips"],
        "rotate": ["flips", "affine"],
        "full": ["flips", "affine", "colour"],
    }


def test_drawn_choices_stay_within_their_limits_and_fill_them() -> None:
    drawn = draw_augmentation("full", 5000, generator())
    assert drawn.flips is not None
    assert drawn.affine is not None
    assert drawn.colour is not None
    assert drawn.flips.float().mean(dim=0).tolist() == pytest.approx([0.5, 0.5], abs=0.05)
    zoom = drawn.affine[:, :, :2].det().sqrt()
    assert (float(zoom.min()), float(zoom.max())) == pytest.approx((0.9, 1.1), abs=0.01)
    angle = torch.atan2(drawn.affine[:, 1, 0], drawn.affine[:, 0, 0])
    assert (float(angle.min()), float(angle.max())) == pytest.approx((-3.14, 3.14), abs=0.03)
    assert float(drawn.affine[:, :, 2].abs().max()) == pytest.approx(0.05, abs=0.001)
    assert float((drawn.colour - 1).abs().max()) == pytest.approx(0.2, abs=0.001)


def test_no_choice_changes_nothing() -> None:
    images = random_images()
    assert torch.equal(apply_augmentation(Augmentation(), images), images)


@pytest.mark.parametrize(("flip", "axes"), [((True, False), [3]), ((False, True), [2]), ((True, True), [2, 3])])
def test_flips_are_exact_and_each_photographs_own(flip: tuple[bool, bool], axes: list[int]) -> None:
    images = random_images()
    seen = apply_augmentation(Augmentation(flips=torch.tensor([(False, False), flip, (False, False)])), images)
    assert torch.equal(seen[1:2], images[1:2].flip(axes))
    assert torch.equal(seen[[0, 2]], images[[0, 2]])


def test_no_turn_is_the_identity() -> None:
    images = random_images()
    affine = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]]).expand(3, 2, 3)
    torch.testing.assert_close(apply_augmentation(Augmentation(affine=affine), images), images, rtol=0, atol=1e-5)


def test_a_quarter_turn_turns_by_a_quarter() -> None:
    images = random_images()
    affine = torch.tensor([[[0.0, -1, 0], [1, 0, 0]]]).expand(3, 2, 3)
    seen = apply_augmentation(Augmentation(affine=affine), images)
    torch.testing.assert_close(seen, images.rot90(1, (2, 3)), rtol=0, atol=1e-5)


def test_what_a_shift_brings_in_is_black_as_around_the_disc() -> None:
    affine = torch.tensor([[[1.0, 0, 1], [0, 1, 0]]])  # half of the photograph to the left
    seen = apply_augmentation(Augmentation(affine=affine), torch.ones(1, 3, 8, 8))
    assert seen[..., :4].min() > 0.99
    assert seen[..., 4:].max() == 0


def test_mirrored_and_turned_at_once_is_mirrored_then_turned() -> None:
    images, chosen = random_images(6, 9), draw_augmentation("rotate", 6, generator(3))
    mirrored = apply_augmentation(Augmentation(flips=chosen.flips), images)
    wanted = apply_augmentation(Augmentation(affine=chosen.affine), mirrored)
    torch.testing.assert_close(apply_augmentation(chosen, images), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_photographs_that_lie_on_the_device_give_the_same_batches(kind: str) -> None:
    mapped = part([0, 1, 2, 3, 4, 0, 1])
    there = SplitView(torch.from_numpy(np.array(mapped.pixels)), mapped.rows, mapped.grades)
    assert same(epoch(there, augmentation=kind), epoch(mapped, augmentation=kind))


def test_colours_are_multiplied_and_stay_colours() -> None:
    images = random_images() * 0.5
    ones = torch.ones(3, 3)
    torch.testing.assert_close(apply_augmentation(Augmentation(colour=ones), images), images)
    brighter = apply_augmentation(Augmentation(colour=ones * torch.tensor([1.2, 1, 1])), images)
    torch.testing.assert_close(brighter, images * 1.2)
    grey = apply_augmentation(Augmentation(colour=ones * torch.tensor([1, 1, 0])), images)
    torch.testing.assert_close(grey[:, 0], grey[:, 2])
    flat = apply_augmentation(Augmentation(colour=ones * torch.tensor([1, 0, 1])), images)
    torch.testing.assert_close(flat, images.mean(dim=(1, 2, 3), keepdim=True).expand_as(images))
    assert apply_augmentation(Augmentation(colour=ones * 9), images).max() == 1


def test_choices_are_applied_the_same_again() -> None:
    images, chosen = random_images(), draw_augmentation("full", 3, generator())
    assert torch.equal(apply_augmentation(chosen, images), apply_augmentation(chosen, images))


@given(
    st.lists(st.integers(0, 2**32 - 1), min_size=2, max_size=2),
    st.lists(st.integers(0, 2**32 - 1), min_size=2, max_size=2),
)
def test_seeds_differ_wherever_a_part_differs(one: list[int], other: list[int]) -> None:
    assert (derive_seed(*one) == derive_seed(*other)) == (one == other)
    assert 0 <= derive_seed(*one) < 2**63
