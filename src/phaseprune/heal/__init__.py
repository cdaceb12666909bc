"""Fine-tuning after pruning, and how much of it comes back at which depth.

The package has the name of its main function, which ``phaseprune.heal`` is meant to be: importing
any part of the package binds that name to the package. So the package can be called.
"""

from phaseprune.callable_package import make_callable

make_callable(__name__)
