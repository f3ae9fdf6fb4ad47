"""`subject_for(entry)`: a catalogue entry as something that can be measured; `subject_of_type` the same for any model type.

Rules look at the forward pass's arguments and at what it returns; `data/subjects.yaml` says by class what rules cannot know. Nothing
here knows a model by its name, and nothing here looks at claims.
"""

from __future__ import annotations

import copy
import fnmatch
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from ptmkb.probe import labels, modes, stacks, streams, tiny
from ptmkb.probe.inputs import sample_inputs
from ptmkb.probe.measures import Unmeasurable
from ptmkb.probe.numerics import is_plain_object, seeded
from ptmkb.probe.placeholders import held_places
from ptmkb.probe.subject import Inputs, Loss, Mode, Stream, Subject
from ptmkb.probe.targets import Buildable
from ptmkb.probe.tracing import first_run, remember

_DATA = Path(__file__).parent / "data" / "subjects.yaml"
_REFERENCE_LABELS = ("labels", "label", "targets")  # the last word of the name of an argument that is a label
_BY_SIGNATURE = ({"labels": {"return_loss": "yes"}},)
_TRAINING_ONLY = ("masked_regions",)  # hides inputs in training; left out of the plain inputs


@cache
def _everything() -> dict[str, dict[str, Any]]:
    return dict(yaml.safe_load(_DATA.read_text(encoding="utf-8")))


@cache
def class_data(name: str) -> dict[str, Any]:
    """What rules cannot know about a class: all patterns that its name matches, later ones over earlier ones."""
    return {
        key: v
        for pattern, data in _everything().items()
        if fnmatch.fnmatchcase(name, pattern)
        for key, v in data.items()
    }


def subject_for(entry: Buildable, variant: str | None = None) -> Subject:
    """What a catalogue entry's measures look at.

    Args:
        entry: The entry.
        variant: One of its published sizes, at full size on the `meta` device; without it the tiny model.

    Raises:
        LookupError: The entry has no implementation or no such variant.
        ValueError: The model wants an input that cannot be made.
    """
    if variant is not None:
        return subject_of(tiny.variant(entry, variant), f"{entry.id} ({variant})", variant)
    return subject_of(tiny.build_entry(entry), entry.id)


def subject_of_type(model_type: str, architecture: str | None = None, seed: int = 0) -> Subject:
    """The tiny model of a model type of `transformers` as a subject."""
    return subject_of(tiny.build(model_type, architecture, seed), model_type)


def inputs_of(model: nn.Module) -> dict[str, Any]:
    """Inputs of a forward pass of a model of `transformers`, without labels, by the rules and by `data/subjects.yaml`."""
    data = class_data(type(model).__name__)
    return sample_inputs(
        model,
        data.get("extra"),
        data.get("transposed", ()),
        data.get("unsqueezed", ()),
        data.get("placeholders"),
        data.get("token_types"),
    )


def settled(model: nn.Module, inputs: Inputs) -> None:
    """Give norms that go by statistics of earlier batches those of the sample batch, where they still have what they begin with.

    Training would have left them such. With a mean of 0 and a variance of 1 they change nothing, and behind a score of convolutions with
    small random weights nothing of a picture is left that could be measured.

    Args:
        model: Its norms are changed in place.
        inputs: The sample batch.
    """

    def learn(norm: Any, args: tuple[Any, ...]) -> None:
        axes = [axis for axis in range(args[0].ndim) if axis != 1]
        norm.running_mean.copy_(args[0].mean(axes))
        norm.running_var.copy_(args[0].var(axes, unbiased=False))

    hooks = [
        module.register_forward_pre_hook(learn)
        for module in model.modules()
        if isinstance(mean := getattr(module, "running_mean", None), Tensor)
        and isinstance(variance := getattr(module, "running_var", None), Tensor)
        and not mean.is_meta
        and not mean.any()
        and bool((variance == 1).all())
    ]
    if not hooks:
        return
    with torch.no_grad(), seeded():
        model(**dict(inputs))
    for hook in hooks:
        hook.remove()


def forgetful(model: nn.Module, inputs: Inputs) -> None:
    """Have a model work on a copy of whatever it could leave something in for its next run (a session): every run begins alike."""
    held = [name for name, value in inputs.items() if is_plain_object(value)]

    def with_copies(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args, kwargs | {name: copy.deepcopy(kwargs[name]) for name in held if name in kwargs}

    if held:
        model.register_forward_pre_hook(with_copies, with_kwargs=True)


def ready_inputs(model: nn.Module) -> dict[str, Any]:
    """`inputs_of` a model, which is made ready for them: every run begins alike, and lets through what goes in."""
    inputs = inputs_of(model)
    forgetful(model, inputs)
    settled(model, inputs)
    return inputs


def subject_of(model: nn.Module, name: str, scale: str = "tiny") -> Subject:
    """A live model as a subject: runs it once to see what comes out where.

    Args:
        model: A model of `transformers` or of `ptmkb.reference`, in `eval` mode.
        name: For messages.
        scale: `tiny`, or the variant's name.
    """
    data = class_data(type(model).__name__)
    losses: tuple[Loss, ...] = ()
    if type(model).__module__.startswith("ptmkb.reference."):
        inputs, losses = _reference_inputs(model, data)
    else:
        inputs = ready_inputs(model)
    first = None
    try:
        torch.manual_seed(0)
        with torch.no_grad(), stacks.watched(model) as ran:
            if scale == "tiny":
                returned = model(**inputs)
            else:  # a full-size model is worth running only once
                first = first_run(model, [member for _, member in stacks.members(model)], inputs)
                returned = first.output
    except (RuntimeError, NotImplementedError) as error:
        if scale == "tiny":
            raise
        return Subject(name, model, inputs, {}, _cannot_run(error), scale=scale)
    sources = streams.sources(inputs, data.get("streams", {}))
    held = held_places(model, inputs)
    places = _places(held, inputs, sources)
    try:
        read = streams.reader(sources, inputs, returned, data.get("read", {}), places)
    except LookupError as error:
        losses = losses or (_losses(model, inputs, {}, (), data) if scale == "tiny" else ())
        return Subject(name, model, inputs, {}, _unreadable(str(error)), losses=losses, scale=scale)
    outputs = read(returned)
    found, leading = {}, {}
    for stream, rows in sources.items():
        output = outputs.get(stream) if len(outputs) > 1 or len(sources) > 1 else next(iter(outputs.values()))
        made, before = streams.stream(stream, rows, model, inputs, output, places.get(stream), held)
        if output is not None or scale != "tiny" or any(_moves(model, made, inputs, read, outputs)):
            found[stream], leading[stream] = made, before

    def aligned(given: Any) -> Mapping[str, Tensor]:
        return {key: value[:, leading.get(key, 0) :] for key, value in read(given).items()}

    ways = modes.make(data["modes"], inputs, data.get("named", ())) if "modes" in data else ()
    if not losses and scale == "tiny":
        losses = _losses(model, inputs, {key: value.positions for key, value in found.items()}, ways, data)
    lengths = {key: int(value.shape[1]) for key, value in outputs.items()}
    wholes = {id(_whole(value)): int(_whole(value).shape[1]) for value in outputs.values()}
    together = sum(stream in outputs for stream in found) > 1 and len(wholes) == 1
    joint = next(iter(wholes.values())) if together else None
    if places:
        joint = sum(len(own) for own in places.values())
    subject = Subject(
        name=name,
        model=model,
        inputs=inputs,
        streams=found,
        read=aligned,
        modes=ways,
        losses=losses,
        no_loss=data.get("no_loss", Subject.no_loss),
        blocks=stacks.blocks(ran, lengths, joint, shared=bool(places)),
        places=places if all(stream in outputs for stream in places) else {},
        scale=scale,
    )
    if first is not None:
        remember(subject, first)
    return subject


def _cannot_run(error: Exception) -> Callable[[Any], Mapping[str, Tensor]]:
    """For a full-size model whose forward pass wants numbers, which `meta` has not: it can still be counted."""
    return _unreadable(f"cannot run without numbers (on meta): {str(error).splitlines()[0][:200]}")


def _unreadable(reason: str) -> Callable[[Any], Mapping[str, Tensor]]:
    """For a model of which nothing can be read position by position."""

    def read(returned: Any) -> Mapping[str, Tensor]:
        raise Unmeasurable(reason)

    return read


def _places(
    held: Mapping[str, list[int]], inputs: Inputs, sources: Mapping[str, tuple[streams.Source, ...]]
) -> dict[str, tuple[int, ...]]:
    """Where each stream's positions are in a text that holds places for the others; empty where none does."""
    held = {kind: list(own) for kind, own in held.items()}
    if "text" not in sources or not held:
        return {}
    if "video" in held and "video" not in sources:
        held.setdefault("image", []).extend(held.pop("video"))  # its pictures came by the name of pictures
    taken = {place for own in held.values() for place in own}
    words = [place for place in range(inputs["input_ids"].shape[1]) if place not in taken]
    return {
        "text": tuple(words),
        **{kind: tuple(sorted(own)) for kind, own in held.items() if kind in sources},
    }


def _moves(
    model: nn.Module,
    stream: Stream,
    inputs: Inputs,
    read: Callable[[Any], Mapping[str, Tensor]],
    outputs: Mapping[str, Tensor],
) -> Iterator[bool]:
    """For each output, whether all of a stream replaced changes it: what changes none goes in to no purpose."""
    generator = torch.Generator().manual_seed(0)
    changed = inputs
    for position in range(stream.positions):
        changed = stream.replaced(changed, position, generator)
    torch.manual_seed(0)
    with torch.no_grad():
        again = read(model(**dict(changed)))
    return (not torch.equal(again[name], output) for name, output in outputs.items())


def _whole(tensor: Tensor) -> Tensor:
    """The tensor that this is a view of, itself where it is none."""
    return tensor._base if tensor._base is not None else tensor


def _losses(
    model: nn.Module,
    inputs: Inputs,
    positions: Mapping[str, int],
    ways: tuple[Mode, ...],
    data: Mapping[str, Any],
) -> tuple[Loss, ...]:
    wanted = data.get("losses", _BY_SIGNATURE if _compares(model) else ())
    further = [
        {name: labels.make(how, model, inputs, positions) for name, how in loss.get("with", {}).items()}
        for loss in wanted
    ]
    made = {
        argument: labels.make(kind, model, {**inputs, **beside}, positions)
        for loss, beside in zip(wanted, further, strict=True)
        for argument, kind in loss["labels"].items()
    }
    made_from_labels = {name for name in inputs if name.startswith("decoder_") and "labels" in made}
    return tuple(
        Loss(
            part=loss.get("part"),
            inputs={
                **{n: v for n, v in inputs.items() if loss.get("keep") or n not in made_from_labels},
                **beside,
                **made,
                **next((way.inputs for way in ways if way.name == loss.get("mode")), {}),
            },
            labels=tuple(loss["labels"]),
        )
        for loss, beside in zip(wanted, further, strict=True)
    )


def _compares(model: nn.Module) -> bool:
    """Whether the model is told by `return_loss` to tell each sample's parts from the other samples'."""
    return "return_loss" in inspect.signature(model.forward).parameters


def _reference_inputs(model: Any, data: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Loss, ...]]:
    batch: dict[str, Any] = model.dummy_inputs(torch.Generator().manual_seed(0))
    given = [name for name in batch if name.rsplit("_", 1)[-1] in _REFERENCE_LABELS]
    inputs = {
        name: value for name, value in batch.items() if name not in given and name not in _TRAINING_ONLY
    }
    if not given:
        return inputs, ()
    parts: Mapping[str, list[str]] = data.get("parts", {})
    if not parts:
        return inputs, (Loss(None, batch, tuple(given)),)
    return inputs, tuple(Loss(part, batch, tuple(names)) for part, names in parts.items())
