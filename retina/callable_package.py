"""Packages that are called like the function of their name.

`retina.audit`, `retina.export` and `retina.predict` are packages and functions of the Python API. Python binds an
imported package to an attribute of its parent, so that the function would be hidden from then on.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package that forwards a call to the function of its name in `retina.api`."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the function of the Python API."""
        api = importlib.import_module("retina.api")
        return getattr(api, self.__name__.rpartition(".")[2])(*args, **options)


def make_callable(package: str) -> None:
    """Let a package of the Python API be called; `package` is its `__name__`."""
    sys.modules[package].__class__ = CallablePackage
