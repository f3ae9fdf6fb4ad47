"""Who sees whom: masks, windows, order, and streams that meet."""

from __future__ import annotations

from torch import Tensor, nn

from benchmarks.mutations import attention, patches
from benchmarks.mutations.attention import Change
from benchmarks.mutations.registry import attending, layers, mutation, stacks_of
from ptmkb.probe.stacks import CROSS
from ptmkb.probe.subject import Subject

# --- attention ------------------------------------------------------------------------------------------------------------------------


@mutation("masks dropped", "flow")
def _no_masks(subject: Subject) -> Subject | None:
    return attending(subject, Change(drop=True))


@mutation("causal mask added", "flow")
def _causal(subject: Subject) -> Subject | None:
    return attending(subject, Change(keep=attention.causal))


@mutation("one position ahead seen", "flow")
def _peeking(subject: Subject) -> Subject | None:
    """A causal mask that is off by one."""
    dropped = attending(subject, Change(drop=True))
    return dropped and attending(dropped, Change(keep=attention.window(10_000, 1)))


@mutation("window of 3", "flow", "layers")
def _window(subject: Subject) -> Subject | None:
    return attending(subject, Change(keep=attention.window(2, 2)))


@mutation("window of 3 in the last layers", "layers")
def _late_window(subject: Subject) -> Subject | None:
    return attending(subject, Change(keep=attention.window(2, 2)), last=True)


@mutation("each position alone", "flow", "layers")
def _alone(subject: Subject) -> Subject | None:
    return attending(subject, Change(alone=True))


@mutation("attention gives its values", "cost")
def _values(subject: Subject) -> Subject | None:
    """No scores at all. With two streams, what looks at the other's as many positions would change with the length."""
    return attending(subject, Change(values=True)) if len(subject.streams) == 1 else None


@mutation("each position alone in the last layers", "layers")
def _late_alone(subject: Subject) -> Subject | None:
    return attending(subject, Change(alone=True), last=True)


@mutation("layers back to front", "flow")
def _flipped(subject: Subject) -> Subject | None:
    """Every layer sees its sequence from the end: what looked back looks ahead. Where the first position sees the last already, nothing turns."""
    if any(
        attention.sees(subject, name, 0, stream.positions - 1) for name, stream in subject.streams.items()
    ):
        return None
    for layer in layers(subject):
        patches.on_input(layer, lambda _, hidden: hidden.flip(1))
        patches.on_output(layer, lambda _, taken, given: given.flip(1))
    subject.outputs()
    return subject


@mutation("quadratic mixing added", "cost")
def _quadratic(subject: Subject) -> Subject | None:
    """Products of all positions with all behind every layer, where there are none yet."""
    if attending(patches.copied(subject), Change(keep=attention.window(10_000, 10_000))):
        return None
    for layer in layers(subject):
        patches.on_output(layer, lambda _, taken, given: given + _mixed(given))
    return subject if layers(subject) else None


def _mixed(hidden: Tensor) -> Tensor:
    return (hidden @ hidden.transpose(1, 2)).softmax(-1) @ hidden


# --- streams --------------------------------------------------------------------------------------------------------------------------


@mutation("cross-attention blocked", "flow", "streams")
def _blind(subject: Subject) -> Subject | None:
    return attending(subject, Change(blind=True)) if len(subject.streams) > 1 else None


@mutation("joint sequence cut in two", "flow", "streams")
def _cut(subject: Subject) -> Subject | None:
    """The text's positions and the others no longer see each other."""
    if len(subject.streams) < 2 or len(stacks_of(subject)) != 1:
        return None
    first = next(iter(subject.streams.values())).positions
    return attending(subject, Change(keep=attention.apart(first)))


@mutation("one stream reads the other", "flow", "streams")
def _leak(subject: Subject) -> Subject | None:
    """The mean of what one stack's first layer gives scales what the other's gives, where each has its own."""
    stacks = stacks_of(subject)
    if len(stacks) != 2 or CROSS in stacks or "decoder" in stacks or len(subject.streams) != 2:
        return None
    ran: list[str] = []
    hooks = [
        blocks[0].register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, blocks in stacks.items()
    ]
    subject.outputs()
    for hook in hooks:
        hook.remove()
    if len(set(ran)) < 2:
        return None
    first, second = dict.fromkeys(ran)
    held: list[Tensor] = []

    def hold(_: nn.Module, taken: Tensor, given: Tensor) -> Tensor:
        held[:] = [given.mean(dim=(1, 2), keepdim=True)]
        return given

    patches.on_output(stacks[first][0], hold)
    patches.on_output(stacks[second][0], lambda _, taken, given: given * (1 + held[0]))
    return subject
