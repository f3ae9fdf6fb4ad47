"""Sample inputs that suit text, image and speech models: made here by arithmetic, the same on every machine, nothing downloaded.

The batch has two samples: an English and a Chinese sentence, two discs on a gradient, two voices. They are small and plain, yet have what
probes need: neighbouring positions differ, nothing is constant, nothing is out of a model's range.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

SENTENCES = (
    "A model is what its measurements say it is, not what its name promises.",
    "模型是什么，要看测量的结果，而不是看它的名字。",
)
BATCH = len(SENTENCES)


def tokens(count: int, words: Sequence[int]) -> Tensor:
    """The sentences as token ids: three bytes at a time, hashed to the ids that a vocabulary has for ordinary words.

    Args:
        count: How many tokens a sentence gets.
        words: The ids to choose from.

    Returns:
        (2, count), int64.
    """
    rows = []
    for sentence in SENTENCES:
        data = sentence.encode()
        grams = [data[(3 * i) % len(data) : (3 * i) % len(data) + 3] for i in range(count)]
        rows.append([words[zlib.crc32(gram, i) % len(words)] for i, gram in enumerate(grams)])
    return torch.tensor(rows)


def images(channels: int, height: int, width: int) -> Tensor:
    """A disc on a gradient that runs differently in every channel.

    Returns:
        (2, channels, height, width), float32 in [-1, 1].
    """
    y = torch.linspace(-1, 1, height)[:, None]
    x = torch.linspace(-1, 1, width)[None, :]
    planes = []
    for centre_y, centre_x in ((-0.2, 0.3), (0.35, -0.25)):
        disc = ((y - centre_y) ** 2 + (x - centre_x) ** 2 < 0.25).float()
        for channel in range(channels):
            angle = 0.7 + 2.1 * channel + centre_x
            gradient = (math.cos(angle) * x + math.sin(angle) * y) / math.sqrt(2)
            planes.append(0.6 * gradient + disc * (0.4 if channel % 2 == 0 else -0.4))
    return torch.stack(planes).view(BATCH, channels, height, width)


def waveforms(length: int, sampling_rate: int = 16_000) -> Tensor:
    """Vowel-like sounds: harmonics of a gliding pitch under two formants, louder and softer like syllables, with a little breath.

    Returns:
        (2, length), float32 in [-1, 1].
    """
    time = torch.arange(length) / sampling_rate  # seconds
    voices = []
    for pitch, formants in ((120.0, (700.0, 1220.0)), (210.0, (310.0, 2020.0))):
        glide = pitch * (1 + 0.08 * torch.sin(2 * math.pi * 3 * time))
        phase = 2 * math.pi * torch.cumsum(glide, 0) / sampling_rate
        sound = torch.zeros(length)
        for harmonic in range(1, 20):
            frequency = harmonic * pitch
            loudness = sum(math.exp(-(((frequency - formant) / 250.0) ** 2)) for formant in formants) + 0.02
            sound += loudness * torch.sin(harmonic * phase)
        breath = torch.sin(12.9898 * torch.arange(length) ** 1.5 % 1000)  # a fixed, noise-like sequence
        envelope = 0.6 + 0.4 * torch.sin(2 * math.pi * 4 * time + pitch)
        sound = envelope * (sound + 0.03 * breath)
        voices.append(sound / sound.abs().max().clamp_min(1e-6))
    return torch.stack(voices)


def spectrograms(bins: int, frames: int) -> Tensor:
    """Log magnitudes of the waveforms' short spectra, averaged into `bins` bands.

    Returns:
        (2, frames, bins), float32, about zero mean and unit scale.
    """
    hop, window = 160, 1024
    sound = waveforms(hop * (frames - 1) + window)
    spectra = torch.fft.rfft(
        sound.unfold(1, window, hop) * torch.hann_window(window)
    ).abs()  # (2, frames, 513)
    bands = torch.nn.functional.adaptive_avg_pool1d(spectra, bins)
    logs = torch.log10(bands.clamp_min(1e-5))
    return (logs - logs.mean()) / logs.std()


def vectors(count: int, size: int) -> Tensor:
    """Feature vectors such as a detector gives for regions: smooth waves of different frequency and phase.

    Returns:
        (2, count, size), float32 in [-1, 1].
    """
    sample, row, column = torch.meshgrid(
        torch.arange(BATCH), torch.arange(count), torch.arange(size), indexing="ij"
    )
    return torch.sin(0.9 + 1.7 * sample + 0.61 * row * (1 + column) + 0.37 * column)


def boxes(count: int, size: int = 4) -> Tensor:
    """Boxes (x1, y1, x2, y2) as fractions of the image, x1 < x2 and y1 < y2; further columns hold widths, heights and area.

    Returns:
        (2, count, size), float32 in [0, 1].
    """
    row = torch.arange(count) / max(count, 1)
    corners = []
    for shift in (0.0, 0.07):
        left, top = 0.1 + 0.5 * row * 0.8 + shift, 0.05 + 0.6 * (1 - row) + shift
        right, bottom = left + 0.15 + 0.1 * row, top + 0.2
        corners.append(
            torch.stack(
                [left, top, right, bottom, right - left, bottom - top, (right - left) * (bottom - top)], -1
            )
        )
    return torch.stack(corners)[..., :size]
