"""A few strokes to draw with: boxes, labels, arrows. Coordinates are pixels, y grows downwards."""

from __future__ import annotations

from html import escape

_HEAD = 5.0  # length of an arrow's head


class Canvas:
    """Collects the elements of one drawing."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.elements: list[str] = []

    def box(
        self, x: float, y: float, width: float, height: float, kind: str = "kb-box", label: str = ""
    ) -> None:
        """A rectangle by its upper left corner, with a label in its middle."""
        self.elements.append(
            f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4"/>'
        )
        if label:
            self.label(x + width / 2, y + height / 2 + 4, label)

    def label(
        self,
        x: float,
        y: float,
        text: str,
        *,
        anchor: str = "middle",
        soft: bool = False,
        kind: str = "kb-label",
    ) -> None:
        """A text whose baseline's middle (or `start`, `end`) is given."""
        kind = "kb-label-soft" if soft else kind
        self.elements.append(
            f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str = "kb-arc") -> None:
        """A straight line."""
        self.elements.append(f'<path class="{kind}" d="M{x1:g} {y1:g}L{x2:g} {y2:g}"/>')

    def arrow(self, x1: float, y1: float, x2: float, y2: float, kind: str = "kb-arc") -> None:
        """A straight line with a head at its end."""
        self.line(x1, y1, x2, y2, kind)
        length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5 or 1.0
        ux, uy = (x2 - x1) / length * _HEAD, (y2 - y1) / length * _HEAD
        left, right = (x2 - ux - uy / 2, y2 - uy + ux / 2), (x2 - ux + uy / 2, y2 - uy - ux / 2)
        head = {"kb-arc": "kb-head", "kb-arc-warm": "kb-head-warm"}.get(kind, "kb-off")
        self.elements.append(
            f'<path class="{head}" d="M{x2:g} {y2:g}L{left[0]:g} {left[1]:g}L{right[0]:g} {right[1]:g}Z"/>'
        )

    def curve(self, x1: float, y1: float, x2: float, y2: float, kind: str = "kb-arc") -> None:
        """A line that leaves and arrives upright."""
        middle = (y1 + y2) / 2
        self.elements.append(
            f'<path class="{kind}" d="M{x1:g} {y1:g}C{x1:g} {middle:g} {x2:g} {middle:g} {x2:g} {y2:g}"/>'
        )

    def path(self, d: str, kind: str = "kb-arc") -> None:
        """A path of one's own."""
        self.elements.append(f'<path class="{kind}" d="{d}"/>')

    def ring(self, x: float, y: float, radius: float) -> None:
        """A ⊕: the sum of a residual connection."""
        self.elements.append(f'<circle class="kb-ring" cx="{x:g}" cy="{y:g}" r="{radius:g}"/>')
        arm = radius - 3
        self.path(f"M{x - arm:g} {y:g}h{2 * arm:g}M{x:g} {y - arm:g}v{2 * arm:g}")

    def svg(self, title: str, description: str = "") -> str:
        """The drawing as one line of SVG.

        Args:
            title: What a screen reader says first.
            description: What the drawing shows, in a sentence.
        """
        described = f"<desc>{escape(description)}</desc>" if description else ""
        width, height = self.width + 6, self.height + 6  # room for strokes at the edge
        return (
            f'<svg class="kb-drawing" role="img" viewBox="-3 -3 {width:g} {height:g}" '
            f'width="{width:g}" height="{height:g}"><title>{escape(title)}</title>{described}{"".join(self.elements)}</svg>'
        )
