"""Paint the lesions of diabetic retinopathy into layers over a healthy eye."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from retina.data.synthetic.canvas import Array, Field, Ink, Pixels, Rng, blob_outlines, smooth_noise, winding_paths
from retina.data.synthetic.eye import Eye
from retina.data.synthetic.lesion_counts import LesionCounts

YELLOW = np.array([1.02, 0.86, 0.36])
FLUFFY = np.array([0.96, 0.82, 0.60])
FIBROUS = np.array([0.86, 0.70, 0.49])
SCAR = np.array([0.92, 0.74, 0.48])
PIGMENT = np.array([0.22, 0.13, 0.09])


@dataclass
class Layers:
    """Lesions as layers over the window of a field, each (h, w), 0 to 1, or more for blood."""

    below: list[tuple[Pixels, Array]] = field(default_factory=list)  # cover and colour, under the vessels
    blood: Pixels | None = None  # density, added to that of the vessels
    beads: Pixels | None = None  # density of swollen veins
    above: list[tuple[Pixels, Array]] = field(default_factory=list)  # cover and colour, over the vessels
    veil: Pixels | None = None  # density of blood before the retina, over everything else


def paint_lesions(view: Field, eye: Eye, counts: LesionCounts, rng: Rng) -> Layers:
    """Draw all lesions of an eye into layers over the window of `view`."""
    layers = Layers()
    if counts == LesionCounts():
        return layers
    blood = Ink(view)
    _draw_haemorrhages(blood, view, eye, counts, rng)
    _draw_microaneurysms(blood, view, eye, counts.microaneurysms, rng)
    _draw_irma(blood, view, eye, counts.irma, rng)
    haze = _draw_tufts(blood, view, eye, counts, rng)
    layers.blood = blood.render(0.0038) * np.float32(1.5)
    if haze is not None:
        layers.blood = layers.blood + haze
    if counts.beaded:
        layers.beads = _draw_beads(view, eye, counts.beaded, rng)
    if counts.exudates:
        layers.below.append((_draw_exudates(view, eye, counts.exudates, rng), YELLOW))
    if counts.scars:
        layers.below.extend(_draw_scars(view, eye, counts.scars, rng))
    if counts.cotton_wool:
        layers.above.append((_draw_cotton_wool(view, eye, counts.cotton_wool, rng), FLUFFY))
    if counts.bands:
        layers.above.append((_draw_bands(view, eye, counts.bands, rng), FIBROUS))
    layers.veil = _draw_veil(view, eye, counts, rng)
    return layers


def _draw_positions(
    view: Field,
    eye: Eye,
    n: int,
    rng: Rng,
    *,
    quadrants: int = 4,
    fovea_distance: float = 0.1,
    edge_distance: float = 0.04,
) -> Array:
    """Draw up to `n` positions (n, 2) in some quadrants, off the disc and away from the fovea and the field's edge."""
    order = rng.permutation(4)[: max(1, quadrants)]
    tries = 40 * n + 40
    angle = (order[np.arange(tries) % len(order)] + rng.random(tries)) * np.pi / 2
    radius = np.sqrt(rng.uniform(0.0, 0.85, tries))
    positions = np.stack([np.cos(angle) * radius, np.sin(angle) * radius], axis=-1)
    is_free = view.is_visible(positions, edge_distance)
    is_free &= np.hypot(*(positions - eye.disc).T) > eye.disc_radius * 1.25
    is_free &= np.hypot(*(positions - eye.fovea).T) > fovea_distance
    return positions[is_free][:n]


def _fibre_direction(eye: Eye, positions: Array) -> Array:
    """Return the direction (n,) of nerve fibres, and so of flame haemorrhages, at `positions`: away from the disc."""
    angle: Array = np.arctan2(positions[:, 1] - eye.disc[1], positions[:, 0] - eye.disc[0])
    return angle


def _draw_microaneurysms(ink: Ink, view: Field, eye: Eye, n: int, rng: Rng) -> None:
    positions = np.concatenate(
        [_draw_positions(view, eye, n - n // 2, rng), eye.fovea + rng.normal(0, 0.22, (n // 2, 2))]
    )
    n = len(positions)
    ink.fill(blob_outlines(rng, positions, rng.uniform(0.0055, 0.0105, n), points=10), rng.uniform(0.55, 0.85, n))


def _draw_haemorrhages(ink: Ink, view: Field, eye: Eye, counts: LesionCounts, rng: Rng) -> None:
    positions = _draw_positions(view, eye, counts.haemorrhages, rng, quadrants=counts.quadrants)
    n = len(positions)
    if n == 0:
        return
    flame = rng.random(n) < np.where(np.hypot(*(positions - eye.disc).T) < 0.75, 0.35, 0.08)
    size = np.clip(rng.lognormal(np.log(0.0168), 0.55, n), 0.008, 0.055)
    stretch = np.where(flame, rng.uniform(2.5, 5, n), rng.uniform(1, 1.9, n))
    angle = np.where(flame, _fibre_direction(eye, positions), rng.uniform(0, np.pi, n))
    tone = rng.uniform(0.5, 0.95, n)
    ink.fill(blob_outlines(rng, positions, size, stretch=stretch, angle=angle, roughness=0.13, points=32), tone)
    # Feathered edges: a few threads from every flame along the fibres.
    threads = np.repeat(np.flatnonzero(flame), 5)
    if len(threads):
        starts = positions[threads] + rng.normal(0, 0.25, (len(threads), 2)) * size[threads, None]
        heading = angle[threads] + np.pi * rng.integers(0, 2, len(threads))
        length = size[threads] * rng.uniform(1.6, 2.6, len(threads))
        paths = winding_paths(rng, starts, heading, length, points=6, restless=0.1)
        ink.strokes(paths, np.full(paths.shape[:2], 0.004), tone[threads] * 0.6)


def _draw_beads(view: Field, eye: Eye, quadrants: int, rng: Rng) -> Pixels:
    """Draw swellings of the trunk veins of some quadrants at regular distances, like strings of sausages."""
    ink = Ink(view)
    veins = np.flatnonzero(eye.vessels.trunk & eye.vessels.vein)
    for vein in rng.permutation(veins)[:quadrants]:
        path, width = eye.vessels.paths[vein], eye.vessels.widths[vein]
        spots = np.arange(9 + rng.integers(0, 3), 38, 2)
        spots = spots[view.is_visible(path[spots], 0.03)]
        if len(spots) == 0:
            continue
        direction = path[spots + 1] - path[spots - 1]
        angle = np.arctan2(direction[:, 1], direction[:, 0])
        radii = width[spots] * rng.uniform(0.75, 1.1, len(spots))
        ink.fill(blob_outlines(rng, path[spots], radii, stretch=1.5, angle=angle, roughness=0.06, points=14), 0.95)
    return ink.render(0.0022)


def _draw_irma(ink: Ink, view: Field, eye: Eye, n: int, rng: Rng) -> None:
    """Draw short, thin, tortuous vessels inside the retina, in little nets."""
    if n == 0:
        return
    centres = np.repeat(_draw_positions(view, eye, n, rng, fovea_distance=0.25), 7, axis=0)
    starts = centres + rng.normal(0, 0.02, centres.shape)
    count = len(starts)
    paths = winding_paths(rng, starts, rng.uniform(0, 2 * np.pi, count), rng.uniform(0.06, 0.13, count), restless=1.6)
    ink.strokes(paths, np.full(paths.shape[:2], 0.0042), rng.uniform(0.4, 0.6, count))


def _draw_tufts(ink: Ink, view: Field, eye: Eye, counts: LesionCounts, rng: Rng) -> Pixels | None:
    """Draw fine tangled new vessels on the disc or beside a vein, and return the faint red haze (h, w) around them."""
    veins = eye.vessels.paths[eye.vessels.trunk & eye.vessels.vein]
    on_veins = veins[:, 10:40].reshape(-1, 2)
    on_veins = on_veins[view.is_visible(on_veins, 0.08)]
    centres = on_veins[rng.integers(0, len(on_veins), counts.tufts)] if len(on_veins) else np.empty((0, 2))
    if counts.disc_tuft:
        centres = np.concatenate([centres, eye.disc[None]])
    if len(centres) == 0:
        return None
    reach = rng.uniform(0.10, 0.19, len(centres))
    haze = Ink(view, soft=True)
    haze.fill(blob_outlines(rng, centres, reach * 0.9, roughness=0.25), rng.uniform(0.5, 1, len(centres)))
    for centre, size in zip(centres, reach, strict=True):
        n = int(rng.integers(35, 60))
        heading = rng.uniform(0, 2 * np.pi, n)
        starts = centre + rng.normal(0, 0.2, (n, 2)) * size
        paths = winding_paths(rng, starts, heading, size * rng.uniform(0.6, 1.5, n), points=30, restless=1.5)
        ink.strokes(paths, np.full(paths.shape[:2], rng.uniform(0.0042, 0.0062)), rng.uniform(0.4, 0.75, n))
        ink.fill(
            blob_outlines(rng, paths[:6, -1], rng.uniform(0.008, 0.022, 6), roughness=0.25), rng.uniform(0.5, 0.8, 6)
        )
    return haze.render(0.03) * np.float32(0.42)


def _draw_exudates(view: Field, eye: Eye, clusters: int, rng: Rng) -> Pixels:
    """Draw hard exudates: clusters of sharp yellow specks in a thin yellow haze."""
    specks, haze = Ink(view), Ink(view, soft=True)
    for _ in range(clusters):
        spots = _draw_cluster(eye, rng)
        spots = spots[np.hypot(*(spots - eye.disc).T) > eye.disc_radius * 1.15]
        n = len(spots)
        size = np.clip(rng.lognormal(np.log(0.0075), 0.5, n), 0.004, 0.024)
        stretch, angle = rng.uniform(1, 1.8, n), rng.uniform(0, np.pi, n)
        outlines = blob_outlines(rng, spots, size, stretch=stretch, angle=angle, roughness=0.3, points=14)
        specks.fill(outlines, rng.uniform(0.6, 1.0, n))
        haze.fill(blob_outlines(rng, spots, size * 1.7, points=10), 0.16)
    return np.maximum(specks.render(0.0022), haze.render(0.012))


def _draw_cluster(eye: Eye, rng: Rng) -> Array:
    """Draw the positions (n, 2) of a cluster's specks: near the macula, in a ring, or as a star around the fovea."""
    n = int(rng.integers(16, 64))
    centre: Array = eye.fovea + rng.normal(0, 0.24, 2)
    spread = rng.uniform(0.07, 0.18)
    angle, far = rng.uniform(0, 2 * np.pi, n), np.abs(rng.normal(0, 0.55, n))
    kind = rng.random()
    if kind < 0.3:  # circinate: a ring around a leak, open on one side
        angle = rng.uniform(0, 2 * np.pi) + rng.uniform(0, 4.6, n)
        far, spread = rng.normal(1, 0.13, n), spread * 1.2
    elif kind < 0.42:
        centre, spread = eye.fovea, 0.2
        angle, far = np.round(angle * 7 / np.pi) * np.pi / 7 + rng.normal(0, 0.04, n), rng.uniform(0.25, 1, n)
    spots: Array = centre + np.stack([np.cos(angle), 0.8 * np.sin(angle)], axis=-1) * (far * spread)[:, None]
    return spots


def _draw_cotton_wool(view: Field, eye: Eye, n: int, rng: Rng) -> Pixels:
    """Draw soft pale patches of swollen nerve fibres, not far from the disc."""
    positions = _draw_positions(view, eye, 4 * n, rng, fovea_distance=0.2)
    positions = positions[np.argsort(np.hypot(*(positions - eye.disc).T))][: 2 * n]
    positions = rng.permutation(positions)[:n]
    ink = Ink(view)
    for position in positions:
        size = rng.uniform(0.026, 0.05)
        puffs = position + rng.normal(0, 0.45, (9, 2)) * size
        ink.fill(blob_outlines(rng, puffs, size * rng.uniform(0.4, 0.8, 9), roughness=0.2), rng.uniform(0.55, 0.95, 9))
    patches: Pixels = ink.render(0.010) * np.clip(0.88 + 0.1 * smooth_noise(view, rng, 60), 0, 1)
    return patches


def _draw_scars(view: Field, eye: Eye, n: int, rng: Rng) -> list[tuple[Pixels, Array]]:
    """Draw laser burns outside the arcades: pale round spots in rough rows, some with a clump of pigment."""
    spacing = 0.088
    spots = np.stack(np.meshgrid(np.arange(-1, 1, spacing), np.arange(-1, 1, spacing)), axis=-1).reshape(-1, 2)
    spots = spots + rng.normal(0, 0.016, spots.shape)
    middle = (eye.disc + eye.fovea) / 2
    distance = np.hypot((spots[:, 0] - middle[0]) / 0.72, (spots[:, 1] - middle[1]) / 0.58)
    spots = rng.permutation(spots[(distance > 1) & view.is_visible(spots, 0.02)])[:n]
    size = rng.uniform(0.02, 0.033, len(spots))
    pale, dark = Ink(view), Ink(view)
    pale.fill(blob_outlines(rng, spots, size, roughness=0.1), rng.uniform(0.3, 0.72, len(spots)))
    has_pigment = rng.random(len(spots)) < 0.4
    clumps = blob_outlines(rng, spots[has_pigment], size[has_pigment] * 0.4, roughness=0.35)
    dark.fill(clumps, rng.uniform(0.2, 0.6, has_pigment.sum()))
    return [(pale.render(0.008), SCAR), (dark.render(0.006), PIGMENT)]


def _draw_bands(view: Field, eye: Eye, n: int, rng: Rng) -> Pixels:
    """Draw fibrous tissue: grey-white strands from the disc along the arcades."""
    ink = Ink(view)
    towards_fovea = np.arctan2(eye.fovea[1] - eye.disc[1], eye.fovea[0] - eye.disc[0])
    for _ in range(n):
        heading = towards_fovea + rng.choice([-1, 1]) * rng.uniform(0.6, 1.5)
        start = eye.disc + rng.normal(0, 0.07, 2)
        strands = 9
        paths = winding_paths(
            rng,
            start + rng.normal(0, 0.022, (strands, 2)),
            heading + rng.normal(0, 0.09, strands),
            rng.uniform(0.3, 0.75) * rng.uniform(0.6, 1, strands),
            restless=0.28,
        )
        taper = np.linspace(1, 0.25, paths.shape[1])
        ink.strokes(paths, rng.uniform(0.008, 0.034, (strands, 1)) * taper, rng.uniform(0.25, 0.7, strands))
    return ink.render(0.006)


def _draw_veil(view: Field, eye: Eye, counts: LesionCounts, rng: Rng) -> Pixels | None:
    """Draw blood before the retina, density (h, w): boat-shaped pools with a level top, and clouds in the vitreous."""
    if not (counts.pools or counts.vitreous):
        return None
    density: Pixels = np.zeros(view.shape, dtype=np.float32)
    if counts.pools:
        ink = Ink(view)
        positions = _draw_positions(view, eye, counts.pools, rng, fovea_distance=0.3, edge_distance=0.12)
        ink.fill(np.stack([_draw_pool(position, rng) for position in positions]), rng.uniform(0.5, 1, len(positions)))
        density = density + ink.render(0.009) * (2.0 + 0.2 * smooth_noise(view, rng, 12, octaves=2))
    if counts.vitreous:
        ink = Ink(view, soft=True)
        middle = rng.uniform((-0.4, -0.15), (0.4, 0.65))
        puffs = middle + rng.normal(0, 0.22, (14, 2))
        ink.fill(blob_outlines(rng, puffs, rng.uniform(0.08, 0.26, 14), roughness=0.3), rng.uniform(0.4, 1, 14))
        density = density + ink.render(0.05) * np.clip(0.8 + 0.35 * smooth_noise(view, rng, 7, 2), 0.1, 2)
    return density


def _draw_pool(position: Array, rng: Rng) -> Array:
    """Draw the outline (points, 2) of a pool of settled blood: level above, round below."""
    width, depth, power = rng.uniform(0.08, 0.22), rng.uniform(0.05, 0.16), rng.uniform(0.5, 1.3)
    angle = np.linspace(0, np.pi, 40)
    wobble = 1 + 0.06 * np.sin(angle * rng.uniform(2, 5) + rng.uniform(0, 6))
    x, y = np.cos(angle) * width * wobble, np.sin(angle) ** power * depth * wobble
    y += rng.normal(0, 0.06) * x - rng.uniform(0, 0.2) * depth * np.sin(angle)
    bottom: Array = position + np.stack([x, y], axis=-1)
    along = np.linspace(-1, 1, 12)[1:-1]
    top = np.stack([along * width * wobble[0], rng.uniform(-0.12, 0.05) * depth * (1 - along**2)], axis=-1)
    return np.concatenate([bottom, position + top])
