"""The lesions of diabetic retinopathy, painted into layers over a healthy eye."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from retina.data.synthetic.canvas import Array, Field, Ink, Pixels, Rng, blobs, cloud, wander
from retina.data.synthetic.eye import Eye
from retina.data.synthetic.load import Load

YELLOW = np.array([1.02, 0.86, 0.36])
FLUFFY = np.array([0.96, 0.82, 0.60])
FIBROUS = np.array([0.86, 0.70, 0.49])
SCAR = np.array([0.92, 0.74, 0.48])
PIGMENT = np.array([0.22, 0.13, 0.09])


@dataclass
class Layers:
    """Lesions as layers over the window of a field, each (h, w), 0 to 1 or more for blood."""

    below: list[tuple[Pixels, Array]] = field(default_factory=list)  # cover and colour, under the vessels
    blood: Pixels | None = None  # density, added to the vessels'
    beads: Pixels | None = None  # density, where veins are swollen
    above: list[tuple[Pixels, Array]] = field(default_factory=list)
    veil: Pixels | None = None  # density of blood in the vitreous, before everything


def paint_lesions(view: Field, eye: Eye, load: Load, rng: Rng) -> Layers:
    """Draw all lesions of `load` into layers over the window of `view`."""
    layers = Layers()
    if load == Load():
        return layers
    blood = Ink(view)
    _haemorrhages(blood, view, eye, load, rng)
    _microaneurysms(blood, view, eye, load.microaneurysms, rng)
    _irma(blood, view, eye, load.irma, rng)
    haze = _tufts(blood, view, eye, load, rng)
    layers.blood = blood.done(0.0038) * np.float32(1.5)
    if haze is not None:
        layers.blood = layers.blood + haze
    if load.beaded:
        layers.beads = _beads(view, eye, load.beaded, rng)
    if load.exudates:
        layers.below.append((_exudates(view, eye, load.exudates, rng), YELLOW))
    if load.scars:
        layers.below.extend(_scars(view, eye, load.scars, rng))
    if load.cotton_wool:
        layers.above.append((_cotton_wool(view, eye, load.cotton_wool, rng), FLUFFY))
    if load.bands:
        layers.above.append((_bands(view, eye, load.bands, rng), FIBROUS))
    layers.veil = _veil(view, eye, load, rng)
    return layers


def _places(
    view: Field, eye: Eye, n: int, rng: Rng, *, quadrants: int = 4, near: float = 0.1, inset: float = 0.04
) -> Array:
    """`n` places (n, 2) over some of the quadrants: `inset` from the edge, off the disc, and `near` off the fovea."""
    order = rng.permutation(4)[: max(1, quadrants)]
    tries = 40 * n + 40
    angle = (order[np.arange(tries) % len(order)] + rng.random(tries)) * np.pi / 2
    reach = np.sqrt(rng.uniform(0.0, 0.85, tries))
    places = np.stack([np.cos(angle) * reach, np.sin(angle) * reach], axis=-1)
    free = view.visible(places, inset)
    free &= np.hypot(*(places - eye.disc).T) > eye.disc_radius * 1.25
    free &= np.hypot(*(places - eye.fovea).T) > near
    return places[free][:n]


def _fibres(eye: Eye, places: Array) -> Array:
    """The direction (n,) of the nerve fibres at `places`, away from the disc; flame haemorrhages lie along it."""
    angle: Array = np.arctan2(places[:, 1] - eye.disc[1], places[:, 0] - eye.disc[0])
    return angle


def _microaneurysms(ink: Ink, view: Field, eye: Eye, n: int, rng: Rng) -> None:
    places = np.concatenate([_places(view, eye, n - n // 2, rng), eye.fovea + rng.normal(0, 0.22, (n // 2, 2))])
    n = len(places)
    ink.fill(blobs(rng, places, rng.uniform(0.0055, 0.0105, n), points=10), rng.uniform(0.55, 0.85, n))


def _haemorrhages(ink: Ink, view: Field, eye: Eye, load: Load, rng: Rng) -> None:
    places = _places(view, eye, load.haemorrhages, rng, quadrants=load.quadrants)
    n = len(places)
    if n == 0:
        return
    flame = rng.random(n) < np.where(np.hypot(*(places - eye.disc).T) < 0.75, 0.35, 0.08)
    size = np.clip(rng.lognormal(np.log(0.0168), 0.55, n), 0.008, 0.055)
    stretch = np.where(flame, rng.uniform(2.5, 5, n), rng.uniform(1, 1.9, n))
    angle = np.where(flame, _fibres(eye, places), rng.uniform(0, np.pi, n))
    tone = rng.uniform(0.5, 0.95, n)
    ink.fill(blobs(rng, places, size, stretch=stretch, angle=angle, roughness=0.13, points=32), tone)
    # Feathered edges: a few threads along the fibres out of every flame.
    threads = np.repeat(np.flatnonzero(flame), 5)
    if len(threads):
        starts = places[threads] + rng.normal(0, 0.25, (len(threads), 2)) * size[threads, None]
        way = angle[threads] + np.pi * rng.integers(0, 2, len(threads))
        length = size[threads] * rng.uniform(1.6, 2.6, len(threads))
        paths = wander(rng, starts, way, length, points=6, restless=0.1)
        ink.strokes(paths, np.full(paths.shape[:2], 0.004), tone[threads] * 0.6)


def _beads(view: Field, eye: Eye, quadrants: int, rng: Rng) -> Pixels:
    """Swell the trunk veins of some quadrants at regular distances, like strings of sausages."""
    ink = Ink(view)
    veins = np.flatnonzero(eye.vessels.trunk & eye.vessels.vein)
    for vein in rng.permutation(veins)[:quadrants]:
        path, width = eye.vessels.paths[vein], eye.vessels.widths[vein]
        spots = np.arange(9 + rng.integers(0, 3), 38, 2)
        spots = spots[view.visible(path[spots], 0.03)]
        if len(spots) == 0:
            continue
        ahead = path[spots + 1] - path[spots - 1]
        angle = np.arctan2(ahead[:, 1], ahead[:, 0])
        radii = width[spots] * rng.uniform(0.75, 1.1, len(spots))
        ink.fill(blobs(rng, path[spots], radii, stretch=1.5, angle=angle, roughness=0.06, points=14), 0.95)
    return ink.done(0.0022)


def _irma(ink: Ink, view: Field, eye: Eye, n: int, rng: Rng) -> None:
    """Short, thin, tortuous vessels inside the retina, in little nets."""
    if n == 0:
        return
    centres = np.repeat(_places(view, eye, n, rng, near=0.25), 7, axis=0)
    starts = centres + rng.normal(0, 0.02, centres.shape)
    count = len(starts)
    paths = wander(rng, starts, rng.uniform(0, 2 * np.pi, count), rng.uniform(0.06, 0.13, count), restless=1.6)
    ink.strokes(paths, np.full(paths.shape[:2], 0.0042), rng.uniform(0.4, 0.6, count))


def _tufts(ink: Ink, view: Field, eye: Eye, load: Load, rng: Rng) -> Pixels | None:
    """Fine tangled new vessels on the disc or beside a vein; returns the faint red haze (h, w) that they stand in."""
    veins = eye.vessels.paths[eye.vessels.trunk & eye.vessels.vein]
    along = veins[:, 10:40].reshape(-1, 2)
    along = along[view.visible(along, 0.08)]
    elsewhere = along[rng.integers(0, len(along), load.tufts)] if len(along) else np.empty((0, 2))
    centres = np.concatenate([elsewhere, eye.disc[None]]) if load.disc_tuft else elsewhere
    if len(centres) == 0:
        return None
    reach = rng.uniform(0.10, 0.19, len(centres))
    haze = Ink(view, soft=True)
    haze.fill(blobs(rng, centres, reach * 0.9, roughness=0.25), rng.uniform(0.5, 1, len(centres)))
    for centre, size in zip(centres, reach, strict=True):
        n = int(rng.integers(35, 60))
        heading = rng.uniform(0, 2 * np.pi, n)
        starts = centre + rng.normal(0, 0.2, (n, 2)) * size
        paths = wander(rng, starts, heading, size * rng.uniform(0.6, 1.5, n), points=30, restless=1.5)
        ink.strokes(paths, np.full(paths.shape[:2], rng.uniform(0.0042, 0.0062)), rng.uniform(0.4, 0.75, n))
        ink.fill(blobs(rng, paths[:6, -1], rng.uniform(0.008, 0.022, 6), roughness=0.25), rng.uniform(0.5, 0.8, 6))
    return haze.done(0.03) * np.float32(0.42)


def _exudates(view: Field, eye: Eye, clusters: int, rng: Rng) -> Pixels:
    """Hard exudates: clusters of sharp yellow specks in a thin yellow haze."""
    specks, haze = Ink(view), Ink(view, soft=True)
    for _ in range(clusters):
        spots = _cluster(eye, rng)
        spots = spots[np.hypot(*(spots - eye.disc).T) > eye.disc_radius * 1.15]
        n = len(spots)
        size = np.clip(rng.lognormal(np.log(0.0075), 0.5, n), 0.004, 0.024)
        stretch, angle = rng.uniform(1, 1.8, n), rng.uniform(0, np.pi, n)
        outlines = blobs(rng, spots, size, stretch=stretch, angle=angle, roughness=0.3, points=14)
        specks.fill(outlines, rng.uniform(0.6, 1.0, n))
        haze.fill(blobs(rng, spots, size * 1.7, points=10), 0.16)
    return np.maximum(specks.done(0.0022), haze.done(0.012))


def _cluster(eye: Eye, rng: Rng) -> Array:
    """Where the specks (n, 2) of one cluster lie: heaped near the macula, in a ring, or as a star about the fovea."""
    n = int(rng.integers(16, 64))
    centre: Array = eye.fovea + rng.normal(0, 0.24, 2)
    spread = rng.uniform(0.07, 0.18)
    angle, far = rng.uniform(0, 2 * np.pi, n), np.abs(rng.normal(0, 0.55, n))
    kind = rng.random()
    if kind < 0.3:  # circinate: a ring about a leak, open on one side
        angle = rng.uniform(0, 2 * np.pi) + rng.uniform(0, 4.6, n)
        far, spread = rng.normal(1, 0.13, n), spread * 1.2
    elif kind < 0.42:
        centre, spread = eye.fovea, 0.2
        angle, far = np.round(angle * 7 / np.pi) * np.pi / 7 + rng.normal(0, 0.04, n), rng.uniform(0.25, 1, n)
    spots: Array = centre + np.stack([np.cos(angle), 0.8 * np.sin(angle)], axis=-1) * (far * spread)[:, None]
    return spots


def _cotton_wool(view: Field, eye: Eye, n: int, rng: Rng) -> Pixels:
    """Soft pale patches of swollen nerve fibres, not far from the disc."""
    places = _places(view, eye, 4 * n, rng, near=0.2)
    places = places[np.argsort(np.hypot(*(places - eye.disc).T))][: 2 * n]
    places = rng.permutation(places)[:n]
    ink = Ink(view)
    for place in places:
        size = rng.uniform(0.026, 0.05)
        puffs = place + rng.normal(0, 0.45, (9, 2)) * size
        ink.fill(blobs(rng, puffs, size * rng.uniform(0.4, 0.8, 9), roughness=0.2), rng.uniform(0.55, 0.95, 9))
    patches: Pixels = ink.done(0.010) * np.clip(0.88 + 0.1 * cloud(view, rng, 60), 0, 1)
    return patches


def _scars(view: Field, eye: Eye, n: int, rng: Rng) -> list[tuple[Pixels, Array]]:
    """Laser burns outside the arcades: pale round spots in rough rows, some with a clump of pigment."""
    side = 0.088
    rows = np.stack(np.meshgrid(np.arange(-1, 1, side), np.arange(-1, 1, side)), axis=-1).reshape(-1, 2)
    rows = rows + rng.normal(0, 0.016, rows.shape)
    middle = (eye.disc + eye.fovea) / 2
    far = np.hypot((rows[:, 0] - middle[0]) / 0.72, (rows[:, 1] - middle[1]) / 0.58)
    rows = rng.permutation(rows[(far > 1) & view.visible(rows, 0.02)])[:n]
    size = rng.uniform(0.02, 0.033, len(rows))
    pale, dark = Ink(view), Ink(view)
    pale.fill(blobs(rng, rows, size, roughness=0.1), rng.uniform(0.3, 0.72, len(rows)))
    burnt = rng.random(len(rows)) < 0.4
    dark.fill(blobs(rng, rows[burnt], size[burnt] * 0.4, roughness=0.35), rng.uniform(0.2, 0.6, burnt.sum()))
    return [(pale.done(0.008), SCAR), (dark.done(0.006), PIGMENT)]


def _bands(view: Field, eye: Eye, n: int, rng: Rng) -> Pixels:
    """Fibrous tissue: grey-white strands from the disc along the arcades."""
    ink = Ink(view)
    away = np.arctan2(eye.fovea[1] - eye.disc[1], eye.fovea[0] - eye.disc[0])
    for _ in range(n):
        heading = away + rng.choice([-1, 1]) * rng.uniform(0.6, 1.5)
        start = eye.disc + rng.normal(0, 0.07, 2)
        strands = 9
        paths = wander(
            rng,
            start + rng.normal(0, 0.022, (strands, 2)),
            heading + rng.normal(0, 0.09, strands),
            rng.uniform(0.3, 0.75) * rng.uniform(0.6, 1, strands),
            restless=0.28,
        )
        taper = np.linspace(1, 0.25, paths.shape[1])
        ink.strokes(paths, rng.uniform(0.008, 0.034, (strands, 1)) * taper, rng.uniform(0.25, 0.7, strands))
    return ink.done(0.006)


def _veil(view: Field, eye: Eye, load: Load, rng: Rng) -> Pixels | None:
    """Blood before the retina: boat-shaped pools with a level top, and clouds in the vitreous; density (h, w)."""
    if not (load.pools or load.vitreous):
        return None
    density: Pixels = np.zeros(view.shape, dtype=np.float32)
    if load.pools:
        ink = Ink(view)
        places = _places(view, eye, load.pools, rng, near=0.3, inset=0.12)
        ink.fill(np.stack([_boat(place, rng) for place in places]), rng.uniform(0.5, 1, len(places)))
        density = density + ink.done(0.009) * (2.0 + 0.2 * cloud(view, rng, 12, octaves=2))
    if load.vitreous:
        ink = Ink(view, soft=True)
        middle = rng.uniform((-0.4, -0.15), (0.4, 0.65))
        puffs = middle + rng.normal(0, 0.22, (14, 2))
        ink.fill(blobs(rng, puffs, rng.uniform(0.08, 0.26, 14), roughness=0.3), rng.uniform(0.4, 1, 14))
        density = density + ink.done(0.05) * np.clip(0.8 + 0.35 * cloud(view, rng, 7, 2), 0.1, 2)
    return density


def _boat(place: Array, rng: Rng) -> Array:
    """The outline (points, 2) of a pool of blood that has settled: level above, round below."""
    wide, deep, power = rng.uniform(0.08, 0.22), rng.uniform(0.05, 0.16), rng.uniform(0.5, 1.3)
    turn = np.linspace(0, np.pi, 40)
    wobble = 1 + 0.06 * np.sin(turn * rng.uniform(2, 5) + rng.uniform(0, 6))
    x, y = np.cos(turn) * wide * wobble, np.sin(turn) ** power * deep * wobble
    y += rng.normal(0, 0.06) * x - rng.uniform(0, 0.2) * deep * np.sin(turn)
    outline: Array = place + np.stack([x, y], axis=-1)
    bow = np.linspace(-1, 1, 12)[1:-1]
    level = place + np.stack([bow * wide * wobble[0], rng.uniform(-0.12, 0.05) * deep * (1 - bow**2)], axis=-1)
    return np.concatenate([outline, level])
