"""Results folders for report pages, and a strict parser of the pages."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import tiny_dataset
import torch

from retina.config import TrialConfig
from retina.config.sweep import SweepSpec
from retina.data.dataset import FundusDataset
from retina.evaluation import best_trial
from retina.report import page
from retina.results import environment, files
from retina.results.run_folder import RunFolder
from retina.training import model

SPEC = SweepSpec.model_validate(
    {
        "name": "demo",
        "data": tiny_dataset.DATA,
        "trials": 12,
        "parameters": {
            "pretrained": {"value": False},
            "batch_size": {"values": [4, 8, 16], "ordered": True},
            "learning_rate": {"distribution": "log_uniform", "min": 1e-4, "max": 1e-1},
            "optimizer": {"values": ["sgd", "adamw"]},
            "momentum": {"distribution": "uniform", "min": 0.8, "max": 0.99, "when": {"optimizer": "sgd"}},
            "epochs": {"value": 10},
        },
    }
)
STATES = ["PRUNED", "COMPLETE", "FAIL", "PRUNED", "COMPLETE", "PRUNED", "FAIL", "PRUNED", "PRUNED", "COMPLETE"]
BEST = "t0004"
EPOCHS = {"COMPLETE": 10, "PRUNED": 3, "RUNNING": 2, "FAIL": 1}


def config(number: int) -> TrialConfig:
    """Return the configuration of a trial."""
    return tiny_dataset.config(
        batch_size=(4, 8, 16)[number % 3],
        learning_rate=float(f"{10 ** (-4 + 3 * number / 11):.6g}"),
        optimizer=("sgd", "adamw")[number % 2],
        epochs=10,
    )


def folder(root: Path, states: list[str] | None = None, name: str = "demo", spec: SweepSpec = SPEC) -> RunFolder:
    """Write a sweep with a trial for each state; the best is `BEST`, if that trial exists and did not fail."""
    run = RunFolder.create(root / name)
    files.write_text(run.root / "sweep.yaml", spec.to_yaml())
    run.update_metadata(**environment.describe_environment())
    for number, state in enumerate(STATES if states is None else states):
        trial = f"t{number:04d}"
        value = 0.9 if trial == BEST else 0.05 * number
        summary: dict[str, Any] = {}
        if state == "FAIL":
            summary["reason"] = "epoch 2, step 1: the training loss is nan"
        else:
            summary = {"val_qwk": value, "val_accuracy": value / 2, "best_epoch": EPOCHS[state]}
            summary["seconds"] = 60.0 * number
        for epoch in range(1, EPOCHS[state] + 1):
            curve = value * epoch / EPOCHS[state]
            run.record_epoch(trial, epoch, val_qwk=curve, val_accuracy=curve / 2, train_accuracy=curve, val_loss=1.0)
        run.record_trial(trial, state=state, **config(number).model_dump(), epochs_run=EPOCHS[state], **summary)
    run.flush()
    return RunFolder.open(run.root)


def evaluate_best(run: RunFolder, photographs: FundusDataset) -> dict[str, Any]:
    """Evaluate `BEST` as the best trial, with random weights."""
    settings = config(int(BEST[1:]))
    torch.manual_seed(1)
    net = model.build(settings, photographs.config.image_size)
    for layer in net.fc.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.weight.data *= 5  # so that the predicted grades vary
    files.write_json(run.trial(BEST) / "config.json", settings.model_dump(mode="json"))
    torch.save(net.state_dict(), run.trial(BEST) / "model.pt")
    run.update_metadata(data=photographs.summary(), best=BEST)
    return best_trial.evaluate_best_trial(run, BEST, photographs, "val_qwk")


def written(run: RunFolder, importances: dict[str, float] | None = None) -> Read:
    """Write the run's page and parse it."""
    return read(page.write(run, importances or {}, device=tiny_dataset.CPU).read_text(encoding="utf-8"))


@dataclass
class Element:
    """An element: its tag, its attributes, and all text in it."""

    tag: str
    attributes: dict[str, str]
    text: str = ""
    inside: list[Element] = field(default_factory=list)

    def find(self, tag: str, **attributes: str) -> list[Element]:
        """Return the descendants with a tag and attributes."""
        matches = []
        for child in self.inside:
            if child.tag == tag and all(child.attributes.get(key) == value for key, value in attributes.items()):
                matches.append(child)
            matches += child.find(tag, **attributes)
        return matches

    def everything(self) -> list[Element]:
        """Return all descendants."""
        return [element for child in self.inside for element in [child, *child.everything()]]

    @property
    def words(self) -> str:
        """The text with single spaces."""
        return " ".join(self.text.split())


class Read(HTMLParser):
    """A page as a tree; elements that are not closed, or closed in another order, are an error."""

    EMPTY = frozenset({"meta", "link", "input", "img", "br"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open an element."""
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self._open[-1].inside.append(element)
        if tag not in self.EMPTY:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Add an empty element."""
        self._open[-1].inside.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        """Close an element."""
        assert self._open[-1].tag == tag, f"</{tag}> closes <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        """Add text to all open elements."""
        for element in self._open:
            element.text += data

    def find(self, tag: str, **attributes: str) -> list[Element]:
        """Return the elements with a tag and attributes."""
        return self.root.find(tag, **attributes)

    def section(self, name: str) -> Element:
        """Return a section of the page."""
        (section,) = self.find("section", id=name)
        return section

    def trials(self) -> list[dict[str, str]]:
        """Return the rows of the table of trials."""
        (table,) = self.find("table", id="trial-table")
        (head,), (body,) = table.find("thead"), table.find("tbody")
        names = [cell.attributes["data-name"] for cell in head.find("th")]
        rows = [[cell.words for cell in row.inside if cell.tag in {"th", "td"}] for row in body.find("tr")]
        return [dict(zip(names, row, strict=True)) for row in rows]

    def numbers(self, section: str = "best") -> dict[str, list[str]]:
        """Return the rows of all tables of numbers of a section, by name."""
        rows = [row for table in self.section(section).find("table") for row in table.find("tr")]
        named = [(row.find("th", scope="row"), row.find("td")) for row in rows]
        return {names[0].words: [cell.words for cell in cells] for names, cells in named if names}


def read(text: str) -> Read:
    """Parse a page."""
    parsed = Read()
    parsed.feed(text)
    parsed.close()
    assert parsed._open == [parsed.root], "an element is left open"
    return parsed
