"""TRIPOD+AI, the reporting guideline for studies of prediction models (Collins et al. 2024, BMJ 385:e078378).

All 27 items with their 52 parts, for a model card. Parts that follow from the run are filled in; the authors fill in
the others.
"""

from __future__ import annotations

from typing import NamedTuple

from retina.export.facts import CardData
from retina.export.folder import Description

AUTHORS = "to be filled by the authors"


class Item(NamedTuple):
    """One part: its number, its topic in short, what is known about it, and what the authors have to add."""

    number: str
    topic: str
    known: str = ""
    to_add: str = AUTHORS

    @property
    def answer(self) -> str:
        """The text of the part in the card."""
        return "; ".join(filter(None, [self.known, self.to_add])) or AUTHORS


def items(card: CardData, description: Description) -> list[Item]:
    """Return the checklist, filled in as far as the run's files allow."""
    trial = description.trial
    has_data, has_intervals = bool(card.photographs), bool(card.metrics["test"].get("intervals"))
    has_temperature, has_point = bool(card.calibration), bool(description.operating_point)
    imbalance = f"class_weights {trial.class_weights}, label_smoothing {trial.label_smoothing:g}; no resampling"
    skipped = card.data.get("skipped")
    left_out = f"{skipped or 'no'} photographs or labels were left out as unusable" if has_data else ""

    def add(topic: str) -> str:
        return f"{AUTHORS}: {topic}"

    return [
        Item(
            "1", "title", "development and evaluation of a grader of fundus photographs", add("the target population")
        ),
        Item("2", "abstract"),
        Item("3a", "healthcare context, rationale, existing models"),
        Item(
            "3b", "target population, place in care, intended users", 'section "Intended use"', add("the care pathway")
        ),
        Item("3c", "known health inequalities"),
        Item(
            "4",
            "objectives: development, evaluation or both",
            "both, on splits of one data set",
            add("the study's objectives"),
        ),
        Item(
            "5a",
            "sources of data and how representative",
            'section "Data"' if has_data else "",
            add("what kind of source, how representative"),
        ),
        Item("5b", "dates of the data"),
        Item("6a", "setting, number and place of centres"),
        Item("6b", "eligibility of participants"),
        Item("6c", "treatments received"),
        Item(
            "7",
            "preparation and quality checks of the data",
            'section "Input and output"',
            add("whether alike in all groups"),
        ),
        Item("8a", "outcome, how and when assessed", "grade 0 to 4 (ICDR), from the label files", add("how assessed")),
        Item("8b", "who assessed the outcome"),
        Item("8c", "blinding of the outcome's assessment"),
        Item("9a", "choice of predictors", "one colour photograph; nothing else of the patient is used", ""),
        Item("9b", "definition of predictors", 'section "Input and output"', add("how and when it was taken")),
        Item("9c", "who assessed the predictors", "no person: the program reads the photograph", ""),
        Item("10", "sample size", _sample_size(card), add("its justification")),
        Item("11", "missing data", left_out, add("what else is missing and why")),
        Item("12a", "use of the data, partition", 'section "Data"' if has_data else "", "" if has_data else AUTHORS),
        Item("12b", "handling of predictors", 'section "Input and output", preprocess.json', ""),
        Item(
            "12c", "model, building, tuning, internal validation", 'section "How it was chosen"', add("the rationale")
        ),
        Item("12d", "heterogeneity across clusters", "not examined", ""),
        Item("12e", "measures of performance", 'section "Results"', add("their rationale")),
        Item("12f", "updating after evaluation", "temperature, on validation" if has_temperature else "none", ""),
        Item("12g", "how predictions were calculated", "model.onnx, model.pt2, config.json, preprocess.json", ""),
        Item("13", "class imbalance", imbalance, add("why")),
        Item("14", "fairness", "nothing was done in training or evaluation", add("in collecting the data")),
        Item("15", "output and thresholds", 'section "Operating point"', "" if has_point else add("thresholds")),
        Item(
            "16", "differences of training and evaluation data", "splits of one data set", add("of centres, if several")
        ),
        Item("17", "ethical approval and consent"),
        Item("18a", "funding"),
        Item("18b", "conflicts of interest"),
        Item("18c", "protocol"),
        Item("18d", "registration"),
        Item("18e", "availability of the data"),
        Item("18f", "availability of the code", _code(card, description), add("where it is")),
        Item("19", "patient and public involvement"),
        Item("20a", "flow of participants, with and without outcome", _outcome(card), add("who was left out before")),
        Item("20b", "characteristics of participants"),
        Item("20c", "development and evaluation data compared", _if(has_data, "grades by split"), add("demographics")),
        Item("21", "participants and outcomes in each analysis", _outcome(card), "" if has_data else AUTHORS),
        Item("22", "the full model", "this folder", add("restrictions and licence")),
        Item("23a", "performance with intervals", 'section "Results"' if has_intervals else "", add("subgroups")),
        Item("23b", "heterogeneity of performance", "not examined", ""),
        Item("24", "results of updating", _if(has_temperature, 'section "Calibration"') or "none was made", ""),
        Item("25", "interpretation"),
        Item("26", "limitations", 'section "Limits"', add("others")),
        Item("27a", "poor or missing input", "retina predict names photographs that seem unfit", add("what then")),
        Item("27b", "users' part and expertise", "none for cropping and grading", add("who examines the flagged ones")),
        Item("27c", "next steps"),
    ]


def _if(condition: bool, text: str) -> str:
    return text if condition else ""


def _sample_size(card: CardData) -> str:
    return f"{card.patient_summary}; not calculated beforehand by this program" if card.photographs else ""


def _code(card: CardData, description: Description) -> str:
    commit = card.environment.get("git")
    return f"retina-sweeps {description.retina}" + (f", commit {commit}" if commit else "")


def _outcome(card: CardData) -> str:
    pairs = zip(card.photographs, card.referable, strict=True)
    return ", ".join(f"{row[0]}: {without} without and {having} with grade >= 2" for row, (without, having) in pairs)
