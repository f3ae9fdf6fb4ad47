"""Who may see whom: tokens below, what the model makes of them above, and the same as a matrix beside it.

One output is followed in the warm colour; the lines that lead to it are the inputs that it can see. The matrix has outputs as rows and inputs as
columns, exactly as the measured ones on the models' pages.
"""

from __future__ import annotations

from collections.abc import Callable

from ptmkb.site.drawings.canvas import Canvas

_STEP = 34  # distance of tokens
_TOKEN = 24
_CELL = 15
_TOP, _BOTTOM = 24, 112  # y of the outputs' and inputs' upper edges

Rule = Callable[[int, int], bool]
"""Whether output i can see input j."""

_TITLES = {
    "flow-bidirectional": ("Every output sees every input", "每个输出都能看到全部输入"),
    "flow-causal": ("Each output sees its own input and those before it", "每个输出只看到自己和之前的输入"),
    "flow-sliding-window": ("Each output sees the last three inputs", "每个输出只看到最近三个输入"),
    "flow-prefix": (
        "The first three inputs see each other; the rest see what came before",
        "前三个输入彼此可见，其后的只看到之前的",
    ),
    "flow-permuted": (
        "The order of prediction is drawn; the tokens stay where they are",
        "预测顺序是抽取的，词元的位置不变",
    ),
}


def _title(name: str, language: str) -> str:
    return _TITLES[name][language == "zh"]


def _flow(
    name: str, rule: Rule, followed: int, numbers: list[str] | None = None, count: int = 6
) -> Callable[[str], str]:
    """A drawing of one rule on one sequence."""

    def draw(language: str) -> str:
        canvas = Canvas(count * _STEP + 40 + count * _CELL, 150)
        for i in range(count):
            for j in range(count):
                if rule(i, j) and i != followed:
                    canvas.curve(_centre(j), _BOTTOM, _centre(i), _TOP + _TOKEN, "kb-arc-faint")
        for j in range(count):
            if rule(followed, j):
                canvas.curve(_centre(j), _BOTTOM, _centre(followed), _TOP + _TOKEN, "kb-arc-warm")
        for i in range(count):
            seen = rule(followed, i)
            canvas.box(i * _STEP, _TOP, _TOKEN, _TOKEN, "kb-token-warm" if i == followed else "kb-token")
            canvas.box(
                i * _STEP, _BOTTOM, _TOKEN, _TOKEN, "kb-token-warm" if seen else "kb-token", str(i + 1)
            )
            if numbers:
                canvas.label(_centre(i), _TOP - 8, numbers[i], soft=True)
        _matrix(canvas, count * _STEP + 30, (136 + _TOP - count * _CELL) / 2, count, rule, followed)
        return canvas.svg(_title(name, language))

    return draw


def _centre(i: int) -> float:
    return i * _STEP + _TOKEN / 2


def _matrix(canvas: Canvas, x: float, y: float, count: int, rule: Rule, followed: int) -> None:
    for i in range(count):
        for j in range(count):
            kind = "kb-off" if not rule(i, j) else "kb-warm" if i == followed else "kb-on"
            canvas.elements.append(
                f'<rect class="{kind}" x="{x + j * _CELL:g}" y="{y + i * _CELL:g}" width="{_CELL - 2}" height="{_CELL - 2}" rx="2"/>'
            )


_ORDER = [3, 1, 4, 6, 2, 5]
"""The place in the order of prediction of each of six tokens, for the drawing of permutation."""


def _encoder_decoder(language: str) -> str:
    zh = language == "zh"
    canvas = Canvas(420, 172)
    count, gap = 4, 34
    left = [20 + i * gap for i in range(count)]
    right = [240 + i * gap for i in range(count)]
    canvas.box(8, 56, 152, 34, label="编码器" if zh else "encoder")
    canvas.box(228, 56, 152, 34, "kb-box-warm", label="解码器" if zh else "decoder")
    canvas.arrow(160, 73, 226, 73, "kb-arc-warm")
    canvas.label(193, 64, "交叉" if zh else "cross", soft=True)
    canvas.label(193, 90, "注意力" if zh else "attention", soft=True)
    for i in range(count):
        canvas.box(left[i], 116, _TOKEN, _TOKEN, "kb-token", str(i + 1))
        canvas.arrow(left[i] + 12, 116, left[i] + 12, 92)
        canvas.box(right[i], 116, _TOKEN, _TOKEN, "kb-token-warm")
        canvas.arrow(right[i] + 12, 116, right[i] + 12, 92, "kb-arc-warm")
        canvas.arrow(right[i] + 12, 56, right[i] + 12, 38, "kb-arc-warm")
        canvas.box(right[i], 12, _TOKEN, _TOKEN, "kb-token-warm")
    canvas.label(84, 162, "彼此可见" if zh else "see each other", soft=True)
    canvas.label(
        304, 162, "只看之前，也看整个输入" if zh else "see what came before, and all of the input", soft=True
    )
    return canvas.svg(
        "编码器双向，解码器单向并关注整个输入"
        if zh
        else "A bidirectional encoder; a causal decoder that attends to all of it"
    )


def _recurrent(language: str) -> str:
    zh = language == "zh"
    canvas = Canvas(420, 176)
    xs = [70 + i * 74 for i in range(5)]
    for i, x in enumerate(xs):
        canvas.box(x, 138, _TOKEN, _TOKEN, "kb-token", str(i + 1))
        canvas.box(x - 8, 92, 40, 24)
        canvas.box(x - 8, 50, 40, 24, "kb-box-warm")
        canvas.arrow(x + 12, 138, x + 12, 118)
        canvas.path(f"M{x + 20} 138C{x + 44} 120 {x + 44} 92 {x + 28} 76", "kb-arc-warm")
        canvas.box(x, 8, _TOKEN, _TOKEN, "kb-token")
        canvas.arrow(x + 12, 50, x + 12, 34, "kb-arc-warm")
        canvas.path(f"M{x + 4} 92C{x - 18} 76 {x - 18} 40 {x + 2} 32")
        if i + 1 < len(xs):
            canvas.arrow(x + 32, 104, xs[i + 1] - 9, 104)
            canvas.arrow(xs[i + 1] - 8, 62, x + 33, 62, "kb-arc-warm")
    canvas.label(50, 108, "前向" if zh else "forward", anchor="end", soft=True)
    canvas.label(50, 66, "后向" if zh else "backward", anchor="end", soft=True)
    return canvas.svg(
        "前向与后向循环网络各读一遍，结果拼接"
        if zh
        else "One network reads forward, one backward; what they make is joined"
    )


def _state_space(language: str) -> str:
    zh = language == "zh"
    canvas = Canvas(420, 160)
    xs = [64 + i * 86 for i in range(4)]
    for i, x in enumerate(xs):
        canvas.box(x, 122, _TOKEN, _TOKEN, "kb-token", str(i + 1))
        canvas.box(x - 12, 62, 48, 30, "kb-box-warm", f"h{'₁₂₃₄'[i]}")
        canvas.box(x, 8, _TOKEN, _TOKEN, "kb-token")
        canvas.arrow(x + 12, 122, x + 12, 94)
        canvas.arrow(x + 12, 62, x + 12, 34)
        canvas.label(x + 20, 112, "Δ, B", anchor="start", soft=True)
        canvas.label(x + 20, 50, "C", anchor="start", soft=True)
        if i + 1 < len(xs):
            canvas.arrow(x + 36, 77, xs[i + 1] - 13, 77, "kb-arc-warm")
    canvas.label(44, 81, "状态" if zh else "state", anchor="end", soft=True)
    return canvas.svg(
        "固定大小的状态沿序列传递，输入决定写入与读出什么"
        if zh
        else "A state of fixed size moves along; the input decides what is written and read"
    )


DRAWINGS: dict[str, Callable[[str], str]] = {
    "flow-bidirectional": _flow("flow-bidirectional", lambda i, j: True, 2),
    "flow-causal": _flow("flow-causal", lambda i, j: j <= i, 3),
    "flow-sliding-window": _flow("flow-sliding-window", lambda i, j: 0 <= i - j < 3, 4),
    "flow-prefix": _flow("flow-prefix", lambda i, j: j <= i or max(i, j) < 3, 1),
    "flow-permuted": _flow(
        "flow-permuted", lambda i, j: _ORDER[j] <= _ORDER[i], 2, [f"{n}." for n in _ORDER]
    ),
    "flow-encoder-decoder": _encoder_decoder,
    "flow-recurrent": _recurrent,
    "flow-state-space": _state_space,
}
