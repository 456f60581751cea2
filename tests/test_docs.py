"""The documentation: its links lead somewhere, and the keys, columns and modules that it names exist."""

import re
from pathlib import Path

import pytest
from repository import ROOT

from retina.config import SweepSpec, TrialConfig, sweep
from retina.config.search_space import Parameter
from retina.data import duplicates, manifest
from retina.metrics import predictions
from retina.predict import grade
from retina.results import run_folder, schemas
from scripts import reference_tables
from scripts.mkdocs_hooks import on_page_markdown

DOCS = sorted((ROOT / "docs").glob("*.md"))
READMES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("*/README.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
MODELS = {"retina.config.SweepSpec": SweepSpec, "retina.config.TrialConfig": TrialConfig}


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def anchors(file: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def codes(page: str) -> set[str]:
    return set(CODE.findall((ROOT / "docs" / page).read_text(encoding="utf-8")))


@pytest.mark.parametrize("file", [*READMES, *DOCS], ids=name_of)
def test_links_lead_somewhere(file: Path) -> None:
    for link in LINK.findall(file.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (file.parent / path).resolve() if path else file
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", ["sweep-files.md", "tutorial.md"])
def test_sweep_files_that_are_shown_can_be_read(page: str, tmp_path: Path) -> None:
    shown = re.findall(
        r"^```yaml\n(.*?)^```$", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert shown
    for text in shown:
        file = tmp_path / "mine.yaml"
        file.write_text(text, encoding="utf-8")
        assert sweep.load(file).name == "mine"


def test_messages_that_are_explained_are_in_the_code() -> None:
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "retina").rglob("*.py"))
    cells = re.findall(
        r"^\| (`.*?) \|", (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    messages = {code for cell in cells for code in CODE.findall(cell)}
    assert len(messages) > 10
    for message in messages - {"operator torchvision::nms does not exist", "SHA256SUMS"}:  # of torch
        parts = re.split(r"results/x\S*|/tmp/\S*|\S+\.(?:pth|csv|db)\S*|\.\.\.|\d+|'x': .*", message)
        part = max(parts, key=len).strip(" ,:;")
        assert not part or part in source, message


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_pictures_are_small() -> None:
    assert all(file.stat().st_size < 200_000 for file in (ROOT / "docs" / "images").iterdir())


@pytest.mark.parametrize("file", [ROOT / "CONTRIBUTING.md", ROOT / "docs" / "design.md"], ids=name_of)
def test_modules_that_are_named_exist(file: Path) -> None:
    packages = {folder.name for folder in (ROOT / "retina").iterdir() if folder.is_dir()}
    for code in CODE.findall(file.read_text(encoding="utf-8")):
        if re.fullmatch(r"[a-z_]+(/[a-z_]+)+/?(\.py)?", code):
            path = code.removesuffix(".py").rstrip("/")
            base = ROOT / "retina" if path.partition("/")[0] in packages else ROOT
            assert (base / path).is_dir() or (base / f"{path}.py").is_file(), code


@pytest.mark.parametrize("path", [*MODELS, "retina.config.search_space.Parameter"])
def test_every_key_has_a_meaning(path: str) -> None:
    rows = [line.split(" | ") for line in reference_tables.settings(path).splitlines()[2:]]
    assert [row[0] for row in rows if not row[-1].strip(" |")] == []


def test_meanings_are_of_keys_that_exist() -> None:
    keys = {
        key for path in MODELS for key in re.findall(r"^\| `([\w.]+)`", reference_tables.settings(path), re.MULTILINE)
    }
    assert set(reference_tables.MEANINGS) <= keys | set(Parameter.model_fields)


def test_settings_are_described_with_type_range_and_default() -> None:
    table = reference_tables.settings("retina.config.TrialConfig", "parameters.")
    assert "| `parameters.dropout` | number ≥ 0, < 1 | `0.25` |" in table
    assert "| `parameters.loss` | `cross_entropy`, `emd`, `corn`, `mse`, `huber` | `cross_entropy` |" in table
    sweep = reference_tables.settings("retina.config.SweepSpec")
    assert "| `data.synthetic.size` | integer ≥ 64, ≤ 4096 | `512` |" in sweep
    assert "| `trials` | integer ≥ 1 | not set |" in sweep


def test_every_column_is_described() -> None:
    known = codes("results-folder.md")
    settings = set(TrialConfig.model_fields)
    assert set(run_folder.TRIAL_COLUMNS) - settings <= known
    assert {
        *run_folder.HISTORY_COLUMNS,
        *predictions.PREDICTION_COLUMNS,
        *duplicates.COLUMNS,
        *manifest.UNUSED_COLUMNS,
    } <= known
    assert set(grade.COLUMNS) <= codes("exported-folder.md")


def test_every_key_of_the_metrics_is_described() -> None:
    known = codes("results-folder.md")
    for model in (
        schemas.Metrics,
        schemas.SplitMetrics,
        schemas.EnvironmentFile,
        schemas.EnsembleFile,
        schemas.RecordedBaseline,
    ):
        missing = set(model.model_fields) - known - {"trials_without_extension"}
        assert missing == set(), model.__name__


def test_every_command_is_described() -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    listed = reference_tables.command()
    commands = re.findall(r"^    (\w+)  ", listed, re.MULTILINE)
    assert commands
    assert all(f"{{{{ command {name}" in page for name in commands)


def test_the_hook_writes_the_generated_parts() -> None:
    page = on_page_markdown("before\n\n{{ modules metrics }}\n\n{{ command data draw }}\n\n{{ unknown }}")
    assert "| `metrics/verdict` |" in page
    assert "usage: retina data draw" in page
    assert page.endswith("{{ unknown }}")
