"""The sizes of a model: layers, width, heads, key-value heads, head size, feed-forward width, gating, experts.

Method. One forward pass under `ptmkb.probe.tracing`, which sees every product and every attention that runs;
shapes are enough, so that a published size is measured on the `meta` device.
- `layers`: how many times a layer of the stack runs (ALBERT's one layer runs twelve times).
- `width`: features of what goes into the first layer.
- `heads`, `head_size`: from the queries that enter attention (`scaled_dot_product_attention`, or a product,
  softmax and second product written out).
- `key_value_heads`: the width of the projection that makes the keys over the head size: repeated keys do not
  count.
- `feed_forward`: the widest value between two products with weights inside a layer, those around attention
  left out.
- `gated`: whether that value is the elementwise product of two projections.
- `experts`: how many sets of expert weights stand behind a choice of the k best in a layer.

Parts. None for a model of one stack, else the stack's name. A layer in which streams meet (co-attention)
counts in each of their stacks; the other sizes come from layers that belong to one stack, where it has such.

Assumptions. The subject names the layers. Layers that differ are all listed in the detail; the value holds
what they have in common.

What it cannot tell. Attention in a fused kernel, or none at all, gives no `heads`; a layer without attention
(a state space) gives its widest inner value as `feed_forward`. Experts that are not kept in one list of
modules or one tensor.

Source. The names are those of Vaswani et al. 2017 (arXiv 1706.03762), sections 3.1 to 3.3: N layers, d_model,
h heads, d_k, d_ff; key-value heads: Ainslie et al. 2023 (arXiv 2305.13245), grouped-query attention; gating:
Shazeer 2020 (arXiv 2002.05202).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ptmkb.probe.measures import Reading, Unmeasurable

if TYPE_CHECKING:
    from ptmkb.probe.subject import Subject
    from ptmkb.probe.trace import Product, Trace

SCALES: tuple[str, ...] = ("tiny", "variant")

NUMBERS = ("layers", "width", "heads", "key_value_heads", "head_size", "feed_forward", "experts")


def parse(value: Any) -> dict[str, int | bool]:
    """A claimed shape in normal form.

    Raises:
        ValueError: It is not a mapping of sizes, or one of them is not a size.
    """
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"a shape is a mapping with any of {', '.join(NUMBERS)}, gated; not {value!r}")
    for name, size in value.items():
        if name == "gated":
            if type(size) is not bool:
                raise ValueError(f"`gated` is true or false; not {size!r}")
        elif name not in NUMBERS:
            raise ValueError(f"`{name}` is not a size; a shape has {', '.join(NUMBERS)}, gated")
        elif isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"`{name}` is a number, 1 or more; not {size!r}")
    return dict(value)


def measure(subject: Subject) -> dict[str | None, Reading]:
    """The shape of every stack.

    Raises:
        Unmeasurable: The subject knows no layers, or a forward pass does not run on `meta`.
    """
    from ptmkb.probe.dataflow import plain_run

    if not any(subject.blocks.values()):
        raise Unmeasurable("no repeated layers are known")
    tracer = plain_run(subject)
    if not tracer.trace.layers:
        raise Unmeasurable("no layer ran")
    return {stack: _reading(tracer.trace, calls) for stack, calls in tracer.trace.stacks().items()}


def agrees(claimed: dict[str, Any], measured: dict[str, Any]) -> bool:
    """Whether every claimed size is the measured one."""
    return all(name in measured and measured[name] == size for name, size in claimed.items())


def _reading(trace: Trace, calls: list[int]) -> Reading:
    value: dict[str, Any] = {"layers": len(calls)}
    own = [index for index in calls if len(trace.layers[index].stacks) == 1] or calls
    width = trace.layers[own[0]].width
    if width is not None:
        value["width"] = width
    shapes = [_layer(trace, index) for index in own]
    for name in ("heads", "key_value_heads", "head_size", "feed_forward", "gated", "experts"):
        found = {shape[name] for shape in shapes if name in shape}
        if len(found) == 1:
            value[name] = found.pop()
    alike = all(shape == shapes[0] for shape in shapes)
    return Reading(value, {} if alike else {"by_layer": shapes})


def _layer(trace: Trace, layer: int) -> dict[str, Any]:
    """What one layer has, without what it has not."""
    from ptmkb.probe.experts import expert_sets

    shape: dict[str, Any] = {}
    attentions = [attention for attention in trace.attentions if attention.layer == layer]
    if attentions:
        first = attentions[0]
        shape |= {"heads": first.heads, "key_value_heads": first.key_heads, "head_size": first.head_size}
    between = [
        product for product in trace.products if product.layer == layer and _is_between(trace, product)
    ]
    if between:
        widest = max(between, key=lambda product: product.inputs)
        shape |= {"feed_forward": widest.inputs, "gated": widest.source.gated}
    if experts := expert_sets(trace, layer):
        shape["experts"] = experts.among
    return shape


def _is_between(trace: Trace, product: Product) -> bool:
    """Whether what goes into a product comes from products of the same layer only, and not by way of attention."""
    around = {
        call
        for a in trace.attentions
        if a.layer == product.layer
        for s in (a.query, a.key, a.value)
        for call in s.calls
    }
    if product.source.context is not None or not product.source.calls or product.source.calls & around:
        return False
    sources = [trace.products[call] for call in product.source.calls]
    return all(other.layer == product.layer and other.source.context is None for other in sources)
