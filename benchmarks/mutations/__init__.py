"""Changes to a live model that alter one property each, and the measures that must see it.

Each is applied by rule to any subject: it looks at what the model has (masks that run, tied parameters, norms, routers), never at which model it
is, nor at what a measure said. It gives the changed subject, or None where the model has nothing of the kind.
"""

from benchmarks.mutations import inside, seeing, weights  # noqa: F401 - each adds its mutations to the list
from benchmarks.mutations.registry import MUTATIONS, Mutation

__all__ = ["MUTATIONS", "Mutation"]
