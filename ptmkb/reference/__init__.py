"""Small, readable PyTorch implementations of catalogued models that `transformers` does not have.

One file a model, each faithful to its paper and configurable to its size. torch is imported only when a model is loaded, so that the
rest of the project can name these models on a machine without it.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def load(module: str, name: str) -> type[nn.Module]:
    """Import a reference model's class.

    Args:
        module: file name in this package, without `.py`, such as "transformer_xl".
        name: class name in that file, such as "TransformerXL".

    Returns:
        The class; it has a `config_class` with the paper's main size as defaults.

    Raises:
        LookupError: if there is no such file, or no such model class in it.
        ModuleNotFoundError: if torch is not installed, with the way to install it.
    """
    qualified = f"{__name__}.{module}"
    if not module.isidentifier() or importlib.util.find_spec(qualified) is None:
        raise LookupError(f"no reference implementation {module!r}: there is no ptmkb/reference/{module}.py")
    try:
        loaded = importlib.import_module(qualified)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ModuleNotFoundError(
            f"the reference model {module!r} needs torch: pip install 'ptmkb[probe]'", name="torch"
        ) from error
    found = getattr(loaded, name, None)
    if not (isinstance(found, type) and hasattr(found, "config_class")):
        raise LookupError(f"ptmkb/reference/{module}.py has no model class {name!r}")
    return found
