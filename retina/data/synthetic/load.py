"""How much of each lesion of diabetic retinopathy the grades of the International Clinical scale stand for.

0 none; 1 microaneurysms only; 2 more than that, less than grade 3; 3 many haemorrhages in all four quadrants, beaded
veins in two, intraretinal microvascular abnormalities (IRMA) in one (the "4-2-1 rule"); 4 new vessels and what they
lead to: blood before the retina, fibrous tissue, the scars of laser treatment.
"""

from __future__ import annotations

from dataclasses import dataclass

from retina.data.synthetic.canvas import Rng


@dataclass(frozen=True)
class Load:
    """How many lesions of each kind one eye has."""

    microaneurysms: int = 0
    haemorrhages: int = 0
    quadrants: int = 4  # over which the haemorrhages are spread
    exudates: int = 0  # clusters
    cotton_wool: int = 0
    beaded: int = 0  # quadrants
    irma: int = 0
    tufts: int = 0  # of new vessels
    disc_tuft: bool = False
    pools: int = 0  # of blood before the retina
    vitreous: bool = False  # blood in the vitreous
    bands: int = 0  # of fibrous tissue
    scars: int = 0


def load_of(grade: int, rng: Rng) -> Load:
    """Draw how many lesions an eye of `grade` has."""

    def some(low: int, high: int, chance: float = 1.0) -> int:
        return int(rng.integers(low, high + 1)) if rng.random() < chance else 0

    if grade == 0:
        return Load()
    if grade == 1:
        return Load(microaneurysms=some(3, 10))
    if grade == 2:
        return Load(
            microaneurysms=some(8, 26),
            haemorrhages=some(4, 15),
            quadrants=some(1, 3),
            exudates=some(1, 4, 0.72),
            cotton_wool=some(1, 2, 0.35),
        )
    if grade == 3:
        return Load(
            microaneurysms=some(20, 50),
            haemorrhages=some(28, 70),
            exudates=some(1, 5, 0.7),
            cotton_wool=some(1, 5, 0.7),
            beaded=some(2, 4),
            irma=some(1, 5),
        )
    disc_tuft, laser = rng.random() < 0.45, rng.random() < 0.35
    return Load(
        microaneurysms=some(10, 40),
        haemorrhages=some(4, 38),
        exudates=some(1, 4, 0.5),
        cotton_wool=some(1, 3, 0.45),
        beaded=some(1, 3, 0.6),
        irma=some(1, 4, 0.6),
        tufts=some(1, 3) if not disc_tuft else some(1, 2, 0.4),
        disc_tuft=disc_tuft,
        pools=some(1, 2, 0.5),
        vitreous=rng.random() < 0.2,
        bands=some(1, 3, 0.35),
        scars=some(60, 170) if laser else 0,
    )
