"""Where modalities meet: one stack for both, two stacks that attend to each other, two that meet only at the end, and speech."""

from __future__ import annotations

import math
from collections.abc import Callable

from ptmkb.site.drawings.canvas import Canvas

_TOKEN = 24


def _tokens(
    canvas: Canvas, x: float, y: float, count: int, kind: str = "kb-token", gap: float = 32
) -> list[float]:
    """A row of tokens; gives their centres."""
    for i in range(count):
        canvas.box(x + i * gap, y, _TOKEN, _TOKEN, kind)
    return [x + i * gap + _TOKEN / 2 for i in range(count)]


def _patches(canvas: Canvas, x: float, y: float, side: float, cells: int) -> None:
    """A little picture cut into patches: a hill and a sun."""
    canvas.box(x, y, side, side, "kb-token")
    canvas.path(
        f"M{x} {y + side}L{x + side * 0.35:g} {y + side * 0.5:g}L{x + side * 0.6:g} {y + side * 0.75:g}L{x + side * 0.75:g} {y + side * 0.6:g}L{x + side} {y + side}Z",
        "kb-head",
    )
    canvas.elements.append(
        f'<circle class="kb-head-warm" cx="{x + side * 0.72:g}" cy="{y + side * 0.26:g}" r="{side * 0.1:g}"/>'
    )
    for i in range(1, cells):
        at = side / cells * i
        canvas.line(x + at, y, x + at, y + side, "kb-arc-faint")
        canvas.line(x, y + at, x + side, y + at, "kb-arc-faint")


def _wave(x: float, y: float, width: float) -> str:
    """The outline of a few syllables of speech, centred on y."""
    points = []
    for i in range(int(width / 2) + 1):
        t = i * 2 / width
        envelope = abs(math.sin(t * math.pi * 3.2)) * (0.4 + 0.6 * math.sin(t * math.pi))
        points.append(f"{x + i * 2:g} {y + 14 * envelope * math.sin(i * 2.3):.1f}")
    return "M" + "L".join(points)


def _single(language: str) -> str:
    zh = language == "zh"
    canvas = Canvas(420, 150)
    text = _tokens(canvas, 30, 100, 5)
    image = _tokens(canvas, 230, 100, 5, "kb-token-warm")
    canvas.box(20, 36, 372, 36, label="同一个 Transformer" if zh else "one Transformer")
    for x in text:
        canvas.arrow(x, 100, x, 74)
    for x in image:
        canvas.arrow(x, 100, x, 74, "kb-arc-warm")
    for x in (*text, *image):
        canvas.arrow(x, 36, x, 16)
    canvas.label(106, 142, "文本" if zh else "words", soft=True)
    canvas.label(306, 142, "图像区域或图块" if zh else "regions or patches", soft=True)
    return canvas.svg(
        "文本与图像拼成一个序列，由同一个网络处理"
        if zh
        else "Words and image pieces form one sequence in one network"
    )


def _dual(language: str) -> str:
    zh = language == "zh"
    canvas = Canvas(420, 190)
    text = _tokens(canvas, 30, 142, 4)
    image = _tokens(canvas, 270, 142, 4, "kb-token-warm")
    canvas.box(20, 92, 140, 30, label="文本编码器" if zh else "text layers")
    canvas.box(260, 92, 140, 30, "kb-box-warm", "图像编码器" if zh else "image layers")
    canvas.box(20, 28, 140, 34, label="跨模态层" if zh else "cross-modal layers")
    canvas.box(260, 28, 140, 34, "kb-box-warm", "跨模态层" if zh else "cross-modal layers")
    for x in text:
        canvas.arrow(x, 142, x, 124)
    for x in image:
        canvas.arrow(x, 142, x, 124, "kb-arc-warm")
    canvas.arrow(90, 92, 90, 64)
    canvas.arrow(330, 92, 330, 64, "kb-arc-warm")
    canvas.arrow(160, 38, 258, 38)
    canvas.arrow(260, 52, 162, 52, "kb-arc-warm")
    canvas.label(210, 28, "键与值" if zh else "keys, values", soft=True)
    canvas.arrow(90, 28, 90, 8)
    canvas.arrow(330, 28, 330, 8, "kb-arc-warm")
    canvas.label(90, 184, "文本" if zh else "words", soft=True)
    canvas.label(330, 184, "图像区域" if zh else "regions", soft=True)
    return canvas.svg(
        "两个流各自编码，再通过交叉注意力互相读取"
        if zh
        else "Two streams, each encoded on its own, then reading each other by cross-attention"
    )


def _dual_encoder(language: str) -> str:
    zh = language == "zh"
    canvas = Canvas(420, 180)
    text = _tokens(canvas, 30, 130, 4)
    canvas.box(20, 80, 140, 30, label="文本编码器" if zh else "text encoder")
    for x in text:
        canvas.arrow(x, 130, x, 112)
    _patches(canvas, 303, 122, 54, 3)
    canvas.box(260, 80, 140, 30, "kb-box-warm", "图像编码器" if zh else "image encoder")
    canvas.arrow(330, 122, 330, 112, "kb-arc-warm")
    canvas.box(182, 14, 56, 30, "kb-box", "u · v")
    canvas.path("M90 80C90 40 120 29 176 29")
    canvas.arrow(172, 29, 180, 29)
    canvas.path("M330 80C330 40 300 29 244 29", "kb-arc-warm")
    canvas.arrow(248, 29, 240, 29, "kb-arc-warm")
    canvas.label(90, 174, "文本" if zh else "words", soft=True)
    canvas.label(210, 62, "相似度" if zh else "similarity", soft=True)
    return canvas.svg(
        "两个编码器互不相见，只在最后比较两个向量"
        if zh
        else "Two encoders that never see each other; only their two vectors are compared"
    )


def _audio_frames(language: str) -> str:
    zh = language == "zh"
    canvas = Canvas(430, 140)
    canvas.path(_wave(8, 106, 84))
    canvas.label(50, 136, "波形" if zh else "waveform", soft=True)
    canvas.arrow(98, 106, 122, 106)
    canvas.box(124, 90, 78, 32, label="卷积" if zh else "convolutions")
    canvas.arrow(202, 106, 224, 106)
    for i in range(6):
        kind = "kb-token-warm" if i in (2, 3) else "kb-token"
        canvas.box(228 + i * 32, 94, _TOKEN, _TOKEN, kind, "?" if i in (2, 3) else "")
        canvas.arrow(240 + i * 32, 94, 240 + i * 32, 68, "kb-arc-warm" if i in (2, 3) else "kb-arc")
    canvas.box(222, 34, 196, 32, "kb-box", "Transformer")
    for x in (304, 336):
        canvas.arrow(x, 34, x, 12, "kb-arc-warm")
    canvas.label(322, 136, "帧，有些被掩住" if zh else "frames, some of them masked", soft=True)
    return canvas.svg(
        "卷积把波形变成帧，再由 Transformer 编码"
        if zh
        else "Convolutions turn a waveform into frames for a Transformer"
    )


def _speech_recognition(language: str) -> str:
    zh = language == "zh"
    canvas = Canvas(440, 150)
    canvas.path(_wave(8, 75, 84))
    canvas.label(50, 112, "语音" if zh else "speech", soft=True)
    canvas.arrow(98, 75, 122, 75)
    for i in range(7):
        heights = (9, 22, 34, 27, 40, 18, 12)
        canvas.box(126 + i * 8, 75 - heights[i] / 2, 6, heights[i], "kb-on")
    canvas.label(153, 112, "帧" if zh else "frames", soft=True)
    canvas.arrow(186, 75, 206, 75)
    canvas.box(208, 58, 82, 34, label="编码器" if zh else "encoder")
    canvas.arrow(290, 75, 312, 75, "kb-arc-warm")
    canvas.box(314, 58, 118, 34, "kb-box-warm", "解码器或 CTC" if zh else "decoder or CTC")
    centres = _tokens(canvas, 316, 12, 4, "kb-token-warm", 30)
    for x in centres:
        canvas.arrow(x, 58, x, 38, "kb-arc-warm")
    canvas.label(373, 112, "文字" if zh else "words", soft=True)
    return canvas.svg(
        "语音变成帧，编码后写成文字"
        if zh
        else "Speech becomes frames, is encoded, and is written down as words"
    )


def _speech_synthesis(language: str) -> str:
    zh = language == "zh"
    canvas = Canvas(440, 130)
    _tokens(canvas, 8, 53, 3, gap=28)
    canvas.label(48, 100, "文字" if zh else "words", soft=True)
    canvas.arrow(92, 65, 112, 65)
    canvas.box(114, 48, 82, 34, label="编码器" if zh else "encoder")
    canvas.arrow(196, 65, 216, 65, "kb-arc-warm")
    canvas.box(218, 48, 92, 34, "kb-box-warm", "声学表示" if zh else "acoustics")
    canvas.label(264, 100, "时长、音高、帧" if zh else "durations, frames", soft=True)
    canvas.arrow(310, 65, 334, 65, "kb-arc-warm")
    canvas.path(_wave(340, 65, 92), "kb-arc-warm")
    canvas.label(386, 100, "语音" if zh else "speech", soft=True)
    return canvas.svg(
        "文字编码后展开为声学表示，再生成波形"
        if zh
        else "Words are encoded, stretched into acoustic frames, and become a waveform"
    )


def _patches_drawing(language: str) -> str:
    zh = language == "zh"
    canvas = Canvas(430, 130)
    _patches(canvas, 6, 20, 84, 3)
    canvas.label(48, 122, "图像" if zh else "image", soft=True)
    canvas.arrow(98, 62, 124, 62)
    centres = _tokens(canvas, 128, 50, 9, "kb-token-warm", 27)
    canvas.label(
        250, 122, "图块排成序列，加上位置" if zh else "patches in a row, with their positions", soft=True
    )
    canvas.box(122, 8, 254, 24, label="Transformer")
    for x in centres:
        canvas.arrow(x, 50, x, 34, "kb-arc-warm")
    canvas.arrow(376, 20, 404, 20)
    canvas.box(404, 8, _TOKEN, _TOKEN, "kb-token")
    return canvas.svg(
        "图像切成图块，当作词元处理" if zh else "An image is cut into patches, which are treated as tokens"
    )


DRAWINGS: dict[str, Callable[[str], str]] = {
    "streams-single": _single,
    "streams-dual": _dual,
    "streams-dual-encoder": _dual_encoder,
    "streams-speech-recognition": _speech_recognition,
    "streams-speech-synthesis": _speech_synthesis,
    "audio-frames": _audio_frames,
    "patches": _patches_drawing,
}
