"""The dependency diagram of the documents: drawn from the imports, and up to date."""

from pathlib import Path

import pytest

from scripts import dependency_diagram
from scripts.dependency_diagram import BEGIN, DOCUMENTS, END, dependencies, mermaid, reduced, updated


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_the_diagram_is_up_to_date(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    is_up_to_date = updated(text, mermaid(reduced(dependencies()))) == text
    assert is_up_to_date, "run python -m scripts.dependency_diagram"


def test_dependencies_are_read_from_all_imports(tmp_path: Path) -> None:
    package = tmp_path / "eye"
    (package / "lens").mkdir(parents=True)
    (package / "__init__.py").write_text("from eye.lens import focus\n")
    (package / "light.py").write_text("")
    (package / "lens" / "__init__.py").write_text("if TYPE_CHECKING:\n    import eye.light\n")
    (package / "cornea.py").write_text("def see():\n    from eye import lens\n    import eye.light, os.path\n")
    assert dependencies(package) == {"light": set(), "lens": {"light"}, "cornea": {"lens", "light"}}


def test_arrows_that_follow_from_others_are_left_out() -> None:
    graph = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}, "d": set()}
    assert reduced(graph) == {"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": set()}
    with pytest.raises(ValueError, match="circle: a, b"):
        reduced({"a": {"b"}, "b": {"a"}, "c": set()})


def test_a_diagram_that_is_out_of_date_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "page.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    monkeypatch.setattr(dependency_diagram, "DOCUMENTS", (document,))
    assert dependency_diagram.main(["--check"]) == 1
    assert "page.md: the diagram is out of date" in capsys.readouterr().err
    assert dependency_diagram.main([]) == 0
    assert dependency_diagram.main(["--check"]) == 0
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "flowchart" in text
    assert "old" not in text


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="markers"):
        updated("no markers", "diagram")
