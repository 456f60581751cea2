"""The model card says what the run's files say, and nothing that they do not."""

import json
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from exported_model import World

from retina.config.sweep import parse_recorded
from retina.export import folder, tripod
from retina.export.card import render_card
from retina.export.facts import CARD_METRIC_NAMES, CardData, format_cell, format_interval
from retina.results.run_folder import RunFolder

AUTHORS = "to be filled by the authors"


@pytest.fixture(scope="module")
def text(world: World) -> str:
    return (world.exported / "MODEL_CARD.md").read_text()


@pytest.fixture(scope="module")
def facts(world: World) -> CardData:
    run = RunFolder.open(world.run)
    return CardData.of(run, json.loads((run.best / "metrics.json").read_text()))


def rewritten(world: World, facts: CardData, **described: Any) -> str:
    read = folder.read_export(world.exported)
    return render_card(facts, read.description.model_copy(update=described), read.preprocess)


def section(text: str, name: str) -> str:
    """From a heading to the next of its rank."""
    match = re.search(rf"^(#+) {re.escape(name)}$(.*?)(?=^\1 |\Z)", text, re.MULTILINE | re.DOTALL)
    assert match, f"no section {name}"
    return match[2]


def rows(text: str) -> dict[str, list[str]]:
    """The rows of its tables by their first cell."""
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {row[0]: row[1:] for row in cells}


def test_every_number_is_the_one_in_metrics_json(text: str, facts: CardData) -> None:
    found = rows(section(text, "Results"))
    for key in ("qwk", "accuracy", "referable_auc"):
        label = CARD_METRIC_NAMES[key]
        for split, shown in zip(("val", "test"), found[label], strict=True):
            result = facts.metrics[split]
            assert shown == format_cell(result[key], result["intervals"][key])
    test = facts.metrics["test"]
    for grade, name in enumerate(("none", "mild", "moderate", "severe", "proliferative")):
        assert found[f"{grade} {name}"] == [str(count) for count in test["confusion_matrix"][grade]]  # the later table
    operating = rows(section(text, "Operating point"))
    assert operating["sensitivity"][1].startswith(f"{test['operating']['sensitivity']:.3f}")
    assert f"{facts.metrics['operating_point']['threshold']:.6g}" in section(text, "Operating point")
    assert f"{facts.metrics['temperature']:.3f}" in section(text, "Calibration")
    assert rows(section(text, "Calibration"))["as trained"][1].startswith(f"{test['ece']:.3f}")
    assert facts.metrics["verdict"] in text


def test_the_data_and_the_search_are_the_runs(text: str, world: World) -> None:
    data, frame = rows(section(text, "Data")), world.data.frame
    for split in ("train", "val", "test"):
        grades = frame.loc[frame["split"] == split, "grade"]
        assert data[split] == ["8", *(str((grades == grade).sum()) for grade in range(5))]
    assert world.data.fingerprint in section(text, "Data")
    assert "The split that came with the data is kept" in text
    chosen = section(text, "How it was chosen")
    assert "gp search over 2 trials (1 COMPLETE, 1 PRUNED), 2.0 hours on 2 cores of a processor." in chosen
    assert rows(chosen)["optimizer"] == ["sgd"]  # of the chosen trial; the search stands above
    assert "sgd, adamw" in chosen
    assert "pretrained | False" in chosen


def test_a_split_by_patient_is_said(world: World, facts: CardData) -> None:
    data = facts.spec.data.model_copy(update={"split": "by_patient"})
    by_patient = replace(facts, spec=facts.spec.model_copy(update={"data": data}))
    assert "Split by patient" in rewritten(world, by_patient)


def test_what_a_person_should_know_first_is_said(world: World, facts: CardData) -> None:
    environment = {
        **facts.environment,
        "data": {**facts.data, "layout": "synthetic", "warnings": ["80% leak"], "skipped": 3},
    }
    written = rewritten(world, replace(facts, environment=environment))
    assert "It must not be used on eyes" in written
    assert "80% leak." in section(written, "Limits")
    assert "3 photographs or labels" in section(written, "Data")
    assert "2 of 3 severe" in section(written, "Limits")


def test_patients_that_are_known_are_counted(world: World, facts: CardData) -> None:
    assert "no two of which are known to be of one patient" in rewritten(world, facts)
    known = replace(facts, environment={**facts.environment, "data": {**facts.data, "patients": 9}})
    assert "24 photographs of 9 patients" in rewritten(world, known)


def test_what_is_not_known_is_not_made_up(world: World, facts: CardData) -> None:
    bare = {key: {"n": 9, "accuracy": 0.5, "qwk": 0.25} for key in ("val", "test")}
    early = CardData({**bare, "trial_id": "t"}, parse_recorded({}, "", allow_no_parameters=True), {}, {})
    written = rewritten(world, early, temperature=1.0, operating_point=None, check=None)
    assert rows(section(written, "Results"))["QWK"] == ["0.250", "0.250"]
    said = (
        "Without intervals",
        "not compared with baselines",
        "Not examined",
        "None was chosen",
        "environment.json has no summary",
    )
    assert [words for words in said if words not in written] == []
    assert "None" not in re.sub(r"None was chosen|```.*?```", "", written, flags=re.DOTALL)
    explained = "Where its output is not finite they are NaN and `grade` is -1"
    assert explained in written
    assert "nan" not in written.replace(explained, "").lower().split()
    filled = {item.number for item in tripod.items(early, folder.read_export(world.exported).description) if item.known}
    assert not filled & {"5a", "10", "11", "12a", "20a", "20c", "21", "23a"}


def test_the_checklist_has_every_item_and_leaves_the_authors_theirs(text: str) -> None:
    numbers = [item for item in rows(section(text, "TRIPOD+AI")) if re.fullmatch(r"\d+[a-g]?", item)]
    assert len(numbers) == 52
    assert sorted({int(re.sub(r"\D", "", number)) for number in numbers}) == list(range(1, 28))
    for number in ("3a", "3c", "6b", "17", "18a", "19", "25", "27c"):
        assert rows(section(text, "TRIPOD+AI"))[number][1] == AUTHORS


def test_the_sections_that_the_checklist_names_are_there(text: str) -> None:
    named = set(re.findall(r'section "([^"]+)"', text))
    assert len(named) > 5
    for name in named:
        assert section(text, name).strip()


def test_its_own_example_runs(text: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.exported)
    found: dict[str, Any] = {}
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], found)  # type: ignore[index]  # noqa: S102
    assert found["probabilities"].shape == (1, 5)
    np.testing.assert_allclose(found["probabilities"].sum(), 1, atol=1e-6)


def test_tables_are_whole(text: str) -> None:
    lines = text.splitlines()
    for above, line in pairwise(lines):
        if line[:1] == above[:1] == "|":
            assert line.count("|") == above.count("|"), line
    for at, line in enumerate(lines):
        if re.fullmatch(r"\|(-+\|)+", line):
            assert lines[at - 2] == "", "a table begins after an empty line"
            assert lines[at + 1][:1] == "|", "a table has rows"


def test_words() -> None:
    assert format_cell(None) == "-"
    assert format_cell(0.5) == "0.500"
    assert format_cell(0.5, [0.25, 0.75]) == "0.500 [0.250, 0.750]"
    assert format_interval(None) == "-"
