"""Which normalisation a model's layers use, and where it stands: before, behind, or on both sides of each sub-layer.

Method.
- `kind`: every module that gives what it takes in shape is probed with random vectors. One that gives the same for a vector and for
  seven times that vector normalises; if it also gives the same for the vector shifted by a constant it is a `LayerNorm`, if not an
  `RMSNorm`; if further one position's vector changes another's result, a `GroupNorm`. A module with running statistics is probed in
  training mode too (`BatchNorm`). Calls of `torch.nn.functional`'s own norms are probed in the same way.
- `placement`: one traced run follows each layer's input. What reaches a sum without a product with a weight on its way is the
  residual stream, what reaches it by such products is a branch. A norm between the stream and the branch's first product is `pre`;
  one that the sum goes through before it is the stream again is `post`; one between the branch's last product and the sum is
  `res-post`; before and behind the branch is `sandwich`; before the branch and on the sum is `pre+post`.
- `parallel`: attention and feed-forward start from one state of the stream.
- `qk_norm`: queries and keys are normalised between their projection and their product.

Parts. None for a model of one stack; with several stacks each by its name, and None too where all are alike.

Assumptions. The subject names the layers, and the sums of the residual stream are inside of them. A layer whose sub-layers differ is
`mixed`; the detail lists them all.

What it cannot tell. A norm that is written out as arithmetic outside of a module of its own; one that mixes the layer's input into
others than by a sum (several streams); L2 normalisation with a gain is an `RMSNorm`.

Source. Layer normalisation: Ba et al. 2016 (arXiv 1607.06450); RMSNorm: Zhang and Sennrich 2019 (arXiv 1910.07467); `pre` and
`post`: Xiong et al. 2020 (arXiv 2002.04745).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ptmkb.probe.measures import Reading, Unmeasurable, with_whole

if TYPE_CHECKING:
    from ptmkb.probe.norms import LayerNorms
    from ptmkb.probe.subject import Subject

SCALES: tuple[str, ...] = ("tiny",)

KINDS = ("LayerNorm", "RMSNorm", "GroupNorm", "BatchNorm", "none", "mixed")
PLACEMENTS = ("pre", "post", "sandwich", "res-post", "pre+post", "none", "mixed")
FLAGS = ("parallel", "qk_norm")


def parse(value: Any) -> dict[str, Any]:
    """A claimed norm in normal form: a mapping with any of `kind`, `placement`, `parallel`, `qk_norm`.

    A text is read word by word: `post`, `RMSNorm`, `pre RMSNorm`.

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(value, str):
        words = value.split()
        claim: dict[str, Any] = {
            "placement" if word in PLACEMENTS and (word not in KINDS or len(words) > 1) else "kind": word
            for word in words
        }
        if value in ("none", "mixed"):
            claim = {"kind": value, "placement": value}
    else:
        claim = dict(value) if isinstance(value, Mapping) else {}
    if not claim:
        raise ValueError(
            f"a norm is a placement ({', '.join(PLACEMENTS)}), a kind ({', '.join(KINDS)}), or both; not {value!r}"
        )
    for name, given in claim.items():
        if name in FLAGS:
            if type(given) is not bool:
                raise ValueError(f"`{name}` is true or false; not {given!r}")
        elif name not in ("kind", "placement"):
            raise ValueError(f"`{name}` says nothing of a norm; it takes kind, placement, {', '.join(FLAGS)}")
        elif given not in (KINDS if name == "kind" else PLACEMENTS):
            allowed = ", ".join(KINDS if name == "kind" else PLACEMENTS)
            raise ValueError(f"a norm's {name} is one of {allowed}; not {given!r}")
    return claim


def measure(subject: Subject) -> dict[str | None, Reading]:
    """The norms of every stack.

    Raises:
        Unmeasurable: The subject knows no layers, or no residual sum was seen in any.
    """
    from ptmkb.probe.norms import layer_norms

    if not any(subject.blocks.values()):
        raise Unmeasurable("no repeated layers are known")
    layers = layer_norms(subject)
    stacks = {name: [layer for layer in layers if name in layer.stacks] for name in subject.blocks}
    found: dict[str | None, Reading] = {name: _reading(runs) for name, runs in stacks.items() if runs}
    if not found:
        raise Unmeasurable("no layer ran")
    return with_whole(found)


def agrees(claimed: dict[str, Any], measured: dict[str, Any]) -> bool:
    """Whether all that is claimed was measured; what is not claimed may be anything."""
    return all(measured[name] == given for name, given in claimed.items())


def _reading(layers: Sequence[LayerNorms]) -> Reading:
    residuals = [residual for layer in layers for residual in layer.residuals]
    kinds = {kind for residual in residuals for kind in (*residual.pre, *residual.after, *residual.post)}
    kinds = kinds or {kind for layer in layers for kind in layer.inside}
    value = {
        "kind": _only(kinds),
        "placement": _only({residual.placement for residual in residuals}),
        "parallel": bool(residuals)
        and all(any(residual.parallel for residual in layer.residuals) for layer in layers),
        "qk_norm": any(layer.qk for layer in layers),
    }
    return Reading(value, {"by_layer": [_row(layer) for layer in layers]})


def _only(found: set[str]) -> str:
    return "none" if not found else next(iter(found)) if len(found) == 1 else "mixed"


def _row(layer: LayerNorms) -> dict[str, Any]:
    row: dict[str, Any] = {
        "sub_layers": [
            {
                "placement": residual.placement,
                "kinds": sorted({*residual.pre, *residual.after, *residual.post}),
                "attends": residual.attends,
            }
            for residual in layer.residuals
        ]
    }
    return row | ({"qk_norm": list(layer.qk)} if layer.qk else {})
