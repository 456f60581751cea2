"""MODEL_CARD.md: what the model is, how it was made, its performance and its limits, filled in from the run.

The sections are those of Mitchell et al. 2019 (doi 10.1145/3287560.3287596), followed by the checklist of TRIPOD+AI.
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


def render_card(card: CardData, description: Description, preprocess: Preprocess) -> str:
    """Return the text of MODEL_CARD.md; it contains no path of this machine."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("retina.export"),
        undefined=jinja2.StrictUndefined,
        autoescape=jinja2.select_autoescape(()),  # the text is not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template(TEMPLATE).render(
        card=card,
        model=description,
        preprocess=preprocess,
        settings=setting_rows(description.trial),
        grades=[f"{grade} {name}" for grade, name in enumerate(GRADE_NAMES)],
        data_name=Path(str(card.data.get("path", ""))).name,
        checklist=tripod.items(card, description),
    )
    return re.sub(r"\n{3,}", "\n\n", text)  # sections that are left out leave their empty lines
