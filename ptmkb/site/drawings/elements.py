"""The boxes of a block diagram: what is written in them, with the sizes of a published variant where they were measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ptmkb.site.values import part_text
from ptmkb.site.words import word, word_or

Element = Mapping[str, Any]
Shape = Mapping[str, Any]

_NORMS = {
    "layer": "LayerNorm",
    "rms": "RMSNorm",
    "batch": "BatchNorm",
    "group": "GroupNorm",
    "instance": "InstanceNorm",
}
_ACTIVATIONS = {
    "relu": "ReLU", "gelu": "GELU", "silu": "SiLU", "quick-gelu": "quick GELU", "relu-squared": "ReLU²", "sigmoid": "sigmoid",
    "tanh": "tanh", "mish": "Mish", "elu": "ELU",
}  # fmt: skip
_PARTS = ("token", "character", "position", "fixed-position", "convolution", "segment")
_PLAIN = ("bidirectional", "full", "other", "none", "pointwise", "anti-causal")
_WIDE = 2.0  # a Chinese character is as wide as this many Latin ones


@dataclass(frozen=True)
class Box:
    """One box: its title, the smaller lines below, and the class that colours it; `stacked` draws copies behind it."""

    title: str
    lines: tuple[str, ...] = ()
    kind: str = "kb-box"
    stacked: bool = False

    @property
    def height(self) -> int:
        """In pixels."""
        return 22 + 13 * len(self.lines)


class Sizes:
    """The numbers that a diagram bears: those of a variant, by those of the tiny model that was traced, or the tiny model's own.

    Args:
        shapes: By part, the measured shape of the tiny model and of the variant; the variant's may be missing.
        chosen: How many experts each token goes through, as measured on the variant.
        windows: How far its sliding windows and chunks reach, by kind, as measured on the variant.
        own: Show the tiny model's own numbers.
    """

    def __init__(
        self,
        shapes: Mapping[str | None, tuple[Shape, Shape | None]],
        chosen: int | None = None,
        windows: Mapping[str, int] | None = None,
        own: bool = False,
    ) -> None:
        self.shapes, self._chosen, self._windows, self.own = shapes, chosen, windows or {}, own

    def of(self, parts: tuple[str, ...], name: str, tiny: int | None) -> int | None:
        """The size to show for a size of the tiny model; None where the variant's is not known to be the same size."""
        if self.own:
            return tiny
        for part in (*parts, None):
            if part in self.shapes:
                small, large = self.shapes[part]
                if large and name in large and (tiny is None or small.get(name) == tiny):
                    return int(large[name])
        return None

    def layers(self, parts: tuple[str, ...]) -> tuple[int, int | None]:
        """How many layers the tiny model has (0 if not known) and the model whose numbers are shown."""
        for part in (*parts, None):
            if part in self.shapes:
                small, large = self.shapes[part]
                layers = int(small.get("layers", 0))
                if self.own:
                    return layers, layers or None
                return layers, int(large["layers"]) if large and "layers" in large else None
        return 0, None

    def chosen(self, tiny: int | None) -> int | None:
        """How many experts each token goes through."""
        return tiny if self.own else self._chosen

    def window(self, sees: Mapping[str, Any]) -> int | None:
        """How far a window or a chunk reaches."""
        tiny = next((sees[name] for name in ("window", "chunk") if name in sees), None)
        return tiny if self.own else self._windows.get(sees["kind"])


class Boxes:
    """Makes boxes of elements, in a language, with sizes."""

    def __init__(self, language: str, sizes: Sizes) -> None:
        self.language, self.sizes = language, sizes

    def word(self, key: str, **values: object) -> str:
        """A label."""
        return word(f"block.{key}", self.language, **values)

    def box(self, element: Element, parts: tuple[str, ...]) -> Box:
        """The box of an element of a stack's path; `parts` are the names under which its sizes may stand."""
        kind = element["kind"]
        if kind == "norm":
            return Box(_NORMS.get(element["norm"], str(element["norm"])), kind="kb-token")
        if kind == "embedding":
            return self._embedding(element)
        if kind == "attention":
            return self._attention(element, parts)
        if kind == "feed-forward":
            return Box(self.word("feed-forward"), self._inner(element, parts))
        if kind == "experts":
            return self._experts(element, parts)
        if kind == "state-space":
            lines = self._inner(element, parts)
            if "convolution" in element:
                lines += (self.word("with-convolution"),)
            return Box(self.word(kind), lines, "kb-box-warm")
        if kind == "convolution":
            return Box(self.word(kind), self._convolution(element))
        if kind == "stack":
            return Box(part_text(element["name"], self.language), kind="kb-token")
        warm = kind in ("recurrence", "linear-attention", "fourier", "similarity")
        return Box(self.word(kind), kind="kb-box-warm" if warm else "kb-token")

    def head(self, head: Mapping[str, Any], parts: tuple[str, ...], room: float) -> Box:
        """The box of an output: the vocabulary, or the name that the model gives it."""
        path = [self.box(element, parts).title for element in head["elements"] if "branches" not in element]
        lines = self._wrapped([*path], " → ", room) if len(path) > 1 else []
        if head.get("vocabulary"):
            tied = [self.word("tied")] if head.get("tied") else []
            return Box(self.word("vocabulary"), (*lines, *tied), "kb-token")
        name = head["name"].replace("_", " ")
        title = (
            path[0]
            if head["elements"] and head["elements"][0]["kind"] == "similarity"
            else self.word("output")
        )
        return Box(title, (*self._wrapped(name.split(), " ", room), *lines), "kb-token")

    def _embedding(self, element: Element) -> Box:
        names = [self.word(f"of.{name}") for name in sorted(element["of"], key=_PARTS.index)]
        if not {"token", "character"} & set(element["of"]):
            return Box(names[0], tuple(names[1:]), "kb-token")
        return Box(self.word("embedding"), tuple(names), "kb-token")

    def _attention(self, element: Element, parts: tuple[str, ...]) -> Box:
        heads = self.sizes.of(parts, "heads", element["heads"])
        groups = self.sizes.of(parts, "key_value_heads", element["key_value_heads"])
        lines: list[str] = []
        if heads and groups and groups != heads and "latent" not in element:
            lines.append(self.word("grouped", heads=heads, groups=groups))
        elif heads == 1 or (heads is None and element["heads"] == 1):
            lines.append(self.word("one-head"))
        elif heads:
            lines.append(self.word("heads", heads=heads))
        if "latent" in element:
            lines.append(self.word("latent"))
        if "cross" in element:
            if element["cross"]:
                lines.append(self.word("reads", stack=part_text(element["cross"], self.language)))
            title = self.word("cross")
        else:
            sees = element.get("sees", {}).get("kind")
            title = self.word("attention")
            if sees and sees not in _PLAIN:
                reach = self.sizes.window(element["sees"])
                lines.append(
                    " ".join([word_or("value", sees, self.language), *([f"{reach:,}"] if reach else [])])
                )
            elif sees == "bidirectional":
                lines.append(word_or("value", "bidirectional", self.language))
        lines += [self.word(f"position.{name}") for name in element.get("positions", ())]
        if "query_key_norm" in element:
            lines.append(self.word("normed", norm=_NORMS.get(element["query_key_norm"], "")))
        return Box(title, tuple(lines), "kb-box-warm")

    def _experts(self, element: Element, parts: tuple[str, ...]) -> Box:
        count = self.sizes.of(parts, "experts", element["experts"])
        title = self.word("experts", experts=count) if count else self.word("experts.some")
        chosen = self.sizes.chosen(element.get("chosen"))
        routed = self.word("chosen", chosen=chosen) if chosen else self.word("routed")
        lines = [routed, *self._inner(element, parts)]
        if "shared" in element:
            lines.append(self.word("shared-expert"))
        return Box(title, tuple(lines), stacked=True)

    def _convolution(self, element: Element) -> tuple[str, ...]:
        """Its kernel and how many follow one another, where the numbers are the traced model's, and gating."""
        words = []
        if self.sizes.own:
            words += [self.word("kernel", kernel=element["kernel"])] if element.get("kernel") else []
            words += [self.word("layers", layers=element["layers"])] if element.get("layers", 1) > 1 else []
        words += [self.word("gated")] if element.get("gated") else []
        return (" · ".join(words),) if words else ()

    def _inner(self, element: Element, parts: tuple[str, ...]) -> tuple[str, ...]:
        """The inner width, gating and activation."""
        width = self.sizes.of(parts, "feed_forward", element["width"]) if "width" in element else None
        function = _ACTIVATIONS.get(element.get("activation", ""), "")
        if element.get("gated"):
            function = " ".join(part for part in (self.word("gated"), function) if part)
        line = " · ".join(part for part in (str(width) if width else "", function) if part)
        return (line,) if line else ()

    def _wrapped(self, parts: list[str], between: str, room: float) -> list[str]:
        """Parts in as many lines as they need."""
        lines = [""]
        for part in parts:
            longer = f"{lines[-1]}{between}{part}" if lines[-1] else part
            if lines[-1] and text_width(longer) > room:
                lines[-1] += between.rstrip()
                lines.append(part)
            else:
                lines[-1] = longer
        return lines


def text_width(text: str) -> float:
    """About how wide a small label is, in pixels."""
    return sum(5.4 * (_WIDE if ord(letter) > 0x2E80 else 1.0) for letter in text)
