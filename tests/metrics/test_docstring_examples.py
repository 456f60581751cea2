"""The examples in docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest

import retina.metrics

MODULES = [
    *(f"retina.metrics.{module.name}" for module in pkgutil.iter_modules(retina.metrics.__path__)),
    "retina.training.losses",
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_give_what_they_show(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert not failed  # doctest has printed which


@pytest.mark.parametrize("name", ["retina.metrics.grading", "retina.training.losses"])
def test_examples_are_found(name: str) -> None:
    assert any(test.examples for test in doctest.DocTestFinder().find(importlib.import_module(name)))
