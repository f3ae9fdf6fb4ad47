"""Stands in where nobody named a model's layers: finds blocks by their residual sums, or else the bare path from input to output.

Convolutional networks work in stages whose pictures shrink, so that no layer keeps the positions that went in; some models return no
place for each position. Their blocks are members of lists of modules all the same, and what such a member gives is what it took plus
something. Module names and classes tell nothing here but which members of a list are of one kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch import nn

from ptmkb.probe import streams
from ptmkb.probe.dataflow import INPUT, Call, Recorder, record
from ptmkb.probe.regions import Graph, Residual
from ptmkb.probe.subject import Subject
from ptmkb.probe.subjects import class_data

_ARGUMENTS = (  # a word in an argument's name, and the stream that it feeds; the first that fits
    ("pixel", "image"), ("image", "image"), ("frame", "image"), ("video", "video"), ("ids", "text"), ("text", "text"), ("audio", "audio"),
    ("features", "audio"), ("speech", "audio"), ("wave", "audio"), ("past_values", "time-series"), ("past_time", "time-series"), ("future", "time-series"),
)  # fmt: skip

Blocks = Mapping[str, tuple[nn.Module, ...]]


def residual_blocks(subject: Subject) -> dict[str, tuple[nn.Module, ...]]:
    """The blocks of a model whose layers are not known.

    Args:
        subject: A tiny model; its `blocks` are not looked at.

    Returns:
        By `stream/number`, the stages in the order of running: blocks of one list of modules, each of which adds something to what it took.
        Stages through which the same data runs bear the same stream. Empty where there are none.
    """
    members = dict(_members(subject.model))
    recorder = record(replace(subject, blocks={path: (module,) for path, module in members.items()}))
    graph = Graph(recorder.nodes)
    adding = [call for call in recorder.calls if _adds(call, graph)]
    lists: dict[str, list[Call]] = {}
    for call in adding:
        lists.setdefault(call.stacks[0].rpartition(".")[0], []).append(call)
    kept = {
        path: calls for path, calls in lists.items() if not _sub_layers(subject.model.get_submodule(path))
    }
    innermost = {
        path: calls for path, calls in kept.items() if not any(other.startswith(f"{path}.") for other in kept)
    }
    return _stages(innermost, recorder, graph, subject)


def input_name(argument: str, subject: Subject) -> str:
    """The stream that an argument of the forward pass feeds."""
    for stream, rows in streams.sources(
        subject.inputs, class_data(type(subject.model).__name__).get("streams", {})
    ).items():
        if any(row.argument == argument for row in rows):
            return stream
    return next((stream for word, stream in _ARGUMENTS if word in argument), "input")


def _members(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList | nn.Sequential) and path:
            for index, member in module.named_children():
                if next(member.children(), None) is not None:
                    yield f"{path}.{index}", member


def _adds(call: Call, graph: Graph) -> bool:
    """Whether a member gives what it took plus something."""
    for given in call.given:
        for taken in call.taken:
            if given > taken and graph.nodes[taken].tensor.shape == graph.nodes[given].tensor.shape:
                return any(isinstance(piece, Residual) for piece in graph.pieces(taken, given))
    return False


def _sub_layers(members: nn.Module) -> bool:
    """Whether a list holds the parts of one layer (attention, feed-forward) instead of layers: several, no two of one class."""
    kinds = [type(member) for member in members.children()]
    return len(kinds) > 1 and len(set(kinds)) == len(kinds)


def _stages(
    lists: Mapping[str, list[Call]], recorder: Recorder, graph: Graph, subject: Subject
) -> dict[str, tuple[nn.Module, ...]]:
    found: dict[str, tuple[nn.Module, ...]] = {}
    ends: list[tuple[int, str]] = []
    for calls in sorted(lists.values(), key=lambda calls: calls[0].taken[0]):
        above = graph.above([calls[0].taken[0]])
        stream = next((name for end, name in reversed(ends) if end in above), None)
        if stream is None:
            fed = [str(graph.nodes[at].about["name"]) for at in sorted(above) if graph.nodes[at].op == INPUT]
            stream = _free(input_name(fed[0].partition(".")[0], subject) if fed else "queries", ends)
        number = sum(name.partition("/")[0] == stream for name in found) + 1
        found[f"{stream}/{number}"] = tuple(call.module for call in calls)
        ends += [(given, stream) for given in calls[-1].given]
    return found


def _free(stream: str, ends: list[tuple[int, str]]) -> str:
    """A name that no other column has."""
    taken = {name for _, name in ends}
    names = (stream, *(f"{stream} {number}" for number in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)
