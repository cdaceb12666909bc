"""Fine-tuning after pruning, and how much of it comes back at which depth.

The package has the name of its main function, which ``phaseprune.heal`` is meant to be: importing
any part of the package binds that name to the package. So the package can be called.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *args: Any, **options: Any):
        """``heal.heal``: fine-tune a model of a pruning run."""
        from phaseprune.heal.heal import heal

        return heal(*args, **options)


sys.modules[__name__].__class__ = _Callable
