"""What the shapes of a product's two operands say: how many features it takes and gives, and over how many matrices it runs."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor


def product_sizes(
    name: str, args: tuple[Any, ...], left: Tensor, right: Tensor, weight_is_left: bool
) -> tuple[int, int]:
    """How many features a product takes and gives.

    Args:
        name: The torch function: `linear`, `conv1d` and its like, `einsum`, or a product of matrices.
        args: What it was called with; the equation first for `einsum`.
        left: The first operand that is a tensor.
        right: The second one.
        weight_is_left: Whether the weight is the first.
    """
    if name == "linear":
        return right.shape[-1], right.shape[0] if right.ndim > 1 else 1
    if name.startswith("conv"):
        return left.shape[1] if left.ndim == right.ndim else left.shape[0], right.shape[0]
    if name == "einsum":
        return _einsum_sizes(str(args[0]), left, right, weight_is_left)
    return left.shape[-1], left.shape[-2] if weight_is_left and left.ndim > 1 else right.shape[-1]


def _einsum_sizes(equation: str, left: Tensor, right: Tensor, weight_is_left: bool) -> tuple[int, int]:
    terms, _, result = equation.replace(" ", "").partition("->")
    names = [term.replace("...", "") for term in terms.split(",")]
    size = dict(zip(reversed(names[0]), reversed(left.shape), strict=False))
    size |= dict(zip(reversed(names[1]), reversed(right.shape), strict=False))
    of_weight, of_other = names if weight_is_left else names[::-1]
    contracted = [letter for letter in of_weight if letter in of_other and letter not in result]
    free = [letter for letter in of_weight if letter not in of_other]
    return math.prod(size[letter] for letter in contracted), math.prod(size[letter] for letter in free)


def einsum_batch(equation: str, left: Tensor) -> int:
    """Over how many matrices (samples times heads) a product of two activations runs.

    Args:
        equation: Of `einsum`, with two operands and every letter written out.
        left: The first operand.
    """
    terms, _, result = equation.replace(" ", "").partition("->")
    first, second = terms.split(",")
    size = dict(zip(first, left.shape, strict=False))
    return math.prod(size[letter] for letter in first if letter in second and letter in result)
