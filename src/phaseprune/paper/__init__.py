"""All experiments of arXiv 2605.07271 on a model, and what they say of its claims.

As with ``phaseprune.heal``, the package has the name of its main function and can be called.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *args: Any, **options: Any):
        """``paper.paper``: run all experiments on a model."""
        from phaseprune.paper.paper import paper

        return paper(*args, **options)


sys.modules[__name__].__class__ = _Callable
