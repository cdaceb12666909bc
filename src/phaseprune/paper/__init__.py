"""All experiments of arXiv 2605.07271 on a model, and what they say of its claims.

As with ``phaseprune.heal``, the package has the name of its main function and can be called.
"""

from phaseprune.callable_package import make_callable

make_callable(__name__)
