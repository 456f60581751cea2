"""Numbers of lesions of diabetic retinopathy for each grade of the International Clinical scale.

Grade 0 has none; 1 microaneurysms only; 2 more than that, less than grade 3; 3 many haemorrhages in all four quadrants,
beaded veins in two, intraretinal microvascular abnormalities (IRMA) in one (the "4-2-1 rule"); 4 new vessels and their
consequences: blood before the retina, fibrous tissue, the scars of laser treatment.
"""

from __future__ import annotations

from dataclasses import dataclass

from retina.data.synthetic.canvas import Rng


@dataclass(frozen=True)
class LesionCounts:
    """The number of lesions of each kind in one eye."""

    microaneurysms: int = 0
    haemorrhages: int = 0
    quadrants: int = 4  # with haemorrhages
    exudates: int = 0  # clusters
    cotton_wool: int = 0
    beaded: int = 0  # quadrants with beaded veins
    irma: int = 0
    tufts: int = 0  # of new vessels
    disc_tuft: bool = False
    pools: int = 0  # of blood before the retina
    vitreous: bool = False  # blood in the vitreous
    bands: int = 0  # of fibrous tissue
    scars: int = 0


def draw_lesion_counts(grade: int, rng: Rng) -> LesionCounts:
    """Draw the numbers of lesions of an eye of `grade` at random."""

    def count(low: int, high: int, probability: float = 1.0) -> int:
        return int(rng.integers(low, high + 1)) if rng.random() < probability else 0

    if grade == 0:
        return LesionCounts()
    if grade == 1:
        return LesionCounts(microaneurysms=count(3, 10))
    if grade == 2:
        return LesionCounts(
            microaneurysms=count(8, 26),
            haemorrhages=count(4, 15),
            quadrants=count(1, 3),
            exudates=count(1, 4, 0.72),
            cotton_wool=count(1, 2, 0.35),
        )
    if grade == 3:
        return LesionCounts(
            microaneurysms=count(20, 50),
            haemorrhages=count(28, 70),
            exudates=count(1, 5, 0.7),
            cotton_wool=count(1, 5, 0.7),
            beaded=count(2, 4),
            irma=count(1, 5),
        )
    disc_tuft, laser = rng.random() < 0.45, rng.random() < 0.35
    return LesionCounts(
        microaneurysms=count(10, 40),
        haemorrhages=count(4, 38),
        exudates=count(1, 4, 0.5),
        cotton_wool=count(1, 3, 0.45),
        beaded=count(1, 3, 0.6),
        irma=count(1, 4, 0.6),
        tufts=count(1, 3) if not disc_tuft else count(1, 2, 0.4),
        disc_tuft=disc_tuft,
        pools=count(1, 2, 0.5),
        vitreous=rng.random() < 0.2,
        bands=count(1, 3, 0.35),
        scars=count(60, 170) if laser else 0,
    )
