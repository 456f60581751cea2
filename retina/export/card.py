"""MODEL_CARD.md: what the model is, what it was made of, how good it is and where it ends, filled from the run.

The sections are those of Mitchell et al. 2019 (doi 10.1145/3287560.3287596), with the checklist of TRIPOD+AI behind.
"""

from __future__ import annotations

import re
from pathlib import Path

import jinja2

from retina.config import GRADE_NAMES
from retina.export import tripod
from retina.export.facts import CardData, setting_rows
from retina.export.folder import Description, Preprocess

TEMPLATE = "MODEL_CARD.md.jinja"


def card(facts: CardData, described: Description, preprocess: Preprocess) -> str:
    """The text of MODEL_CARD.md; names no place of this machine."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("retina.export"),
        undefined=jinja2.StrictUndefined,
        autoescape=jinja2.select_autoescape(()),  # the text is no HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template(TEMPLATE).render(
        facts=facts,
        model=described,
        preprocess=preprocess,
        settings=setting_rows(described.trial),
        grades=[f"{grade} {name}" for grade, name in enumerate(GRADE_NAMES)],
        data_name=Path(str(facts.data.get("path", ""))).name,
        checklist=tripod.items(facts, described),
    )
    return re.sub(r"\n{3,}", "\n\n", text)  # parts that are left out leave their empty lines
