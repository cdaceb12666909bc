"""Packages that have the name of their main function, and can be called as it."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *args: Any, **options: Any):
        """The function of the package's name, in the module of that name."""
        name = self.__name__.rpartition(".")[2]
        return getattr(import_module(f"{self.__name__}.{name}"), name)(*args, **options)


def make_callable(package: str) -> None:
    """Let a package be called; its main function is imported when it is.

    Args:
        package: ``__name__`` of the package.
    """
    sys.modules[package].__class__ = _Callable
