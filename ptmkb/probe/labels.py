"""Labels for a model's objectives, one maker a kind; `data/subjects.yaml` says which class wants which."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ptmkb.probe import samples
from ptmkb.probe.inputs import DECODER_TOKENS, REGIONS, described, ordinary_words
from ptmkb.probe.wanted import Wanted

TRANSCRIPT = 4
"""Words of what was said, or fewer where the sound has few frames."""
SOUND_FRAMES = 4
"""Frames of a sound that a text is followed by."""
IGNORED = -100  # the label that cross-entropy leaves out
Inputs = Mapping[str, Any]


def make(kind: Any, model: Any, inputs: Inputs, positions: Mapping[str, int]) -> Any:
    """Labels of one kind.

    Args:
        kind: A name that `data/subjects.yaml` uses, or what `inputs.described` takes.
        model: The model that is to learn.
        inputs: Its inputs without labels.
        positions: How many positions each stream has.
    """
    if not isinstance(kind, str):
        return described(kind, Wanted(model))
    return _MAKERS[kind](model, inputs, positions)


def _words(model: Any, inputs: Inputs, positions: Mapping[str, int]) -> Tensor:
    """The inputs themselves, of which a causal model predicts each from those before it; one is left out, so that this shows too."""
    words: Tensor = inputs["input_ids"].clone()
    words[0, words.shape[1] // 2] = IGNORED
    return words


def _masked(length: int) -> Tensor:
    """Every third position, from a different start in each sample: (2, length), bool."""
    return (torch.arange(length)[None] + torch.arange(samples.BATCH)[:, None]) % 3 == 1


def _other_words(model: nn.Module, count: int) -> Tensor:
    words = ordinary_words(model)
    return samples.tokens(count, words[::-1])


def _masked_words(model: Any, inputs: Inputs, positions: Mapping[str, int]) -> Tensor:
    count = inputs["input_ids"].shape[1]
    return _other_words(model, count).masked_fill(~_masked(count), IGNORED)


def _masked_words_and_regions(model: Any, inputs: Inputs, positions: Mapping[str, int]) -> Tensor:
    words = _masked_words(model, inputs, positions)
    return torch.cat([words, torch.full((samples.BATCH, REGIONS), IGNORED)], dim=1)


def _decoder_words(model: Any, inputs: Inputs, positions: Mapping[str, int]) -> Tensor:
    if "decoder_input_ids" not in inputs:  # a decoder alone, that continues its prompt
        return _words(model, inputs, positions)
    words = _other_words(model, DECODER_TOKENS)
    words[0, DECODER_TOKENS // 2] = IGNORED
    return words


def _next_words(model: Any, inputs: Inputs, positions: Mapping[str, int]) -> Tensor:
    """What follows each word of the decoder's input, for a model that does not make that input from its labels."""
    words: Tensor = inputs["decoder_input_ids"]
    return torch.cat([words[:, 1:], _other_words(model, 1)], dim=1)


def _words_and_frames(model: Any, inputs: Inputs, positions: Mapping[str, int]) -> Tensor:
    """The words, and behind them places for the sound that is to be made of them."""
    words: Tensor = inputs["input_ids"]
    wanted = Wanted(model)
    frame = wanted.setting("audio_latent_token_id", "audio_token_id")
    places = torch.tensor([wanted.setting("audio_bos_token_id"), *[frame] * SOUND_FRAMES])
    return torch.cat([words, places.expand(len(words), -1)], dim=1)


def _spoken(model: Any, inputs: Inputs, positions: Mapping[str, int]) -> Tensor:
    """The words of a transducer's decoder: behind each it may go on to the next, and before the first it begins."""
    words: Tensor = inputs["decoder_input_ids"]
    return words[:, 1:].clone()


def _replaced(model: Any, inputs: Inputs, positions: Mapping[str, int]) -> Tensor:
    return _masked(inputs["input_ids"].shape[1]).long()


def _transcript(model: Any, inputs: Inputs, positions: Mapping[str, int]) -> Tensor:
    frames = positions.get("audio", TRANSCRIPT)
    return _other_words(model, min(TRANSCRIPT, (frames + 1) // 2))  # a longer one may have no probability


def _pairs(model: Any, inputs: Inputs, positions: Mapping[str, int]) -> Tensor:
    return torch.tensor([0, 1])


def _classes(model: Any, inputs: Inputs, positions: Mapping[str, int]) -> Tensor:
    return torch.arange(samples.BATCH) % max(1, int(getattr(model.config, "num_labels", 2) or 2))


def _answers(model: Any, inputs: Inputs, positions: Mapping[str, int]) -> Tensor:
    return torch.tensor([3, 7])


def _objects(model: Any, inputs: Inputs, positions: Mapping[str, int]) -> dict[str, tuple[Tensor, Tensor]]:
    """LXMERT's three region objectives: the object's class, its attribute and its feature, each with the detector's confidence."""
    confidence = _masked(REGIONS).float()
    rows = torch.arange(REGIONS)[None] + torch.arange(samples.BATCH)[:, None]
    return {
        "obj": (rows % model.config.num_object_labels, confidence),
        "attr": ((rows + 3) % model.config.num_attr_labels, confidence),
        "feat": (samples.vectors(REGIONS, model.config.visual_feat_dim).flip(1), confidence),
    }


def _masked_patches(model: Any, inputs: Inputs, positions: Mapping[str, int]) -> Tensor:
    return _masked(positions["image"])


def _masked_frames(model: Any, inputs: Inputs, positions: Mapping[str, int]) -> Tensor:
    return _masked(positions["audio"])


def _distractors(model: Any, inputs: Inputs, positions: Mapping[str, int]) -> Tensor:
    """For each masked frame, other masked frames of the same sample, numbered through the batch."""
    frames, wanted = positions["audio"], model.config.num_negatives
    indices = torch.zeros(samples.BATCH, frames, wanted, dtype=torch.long)
    for sample, mask in enumerate(_masked(frames)):
        places = mask.nonzero().flatten().tolist()
        for order, place in enumerate(places):
            others = places[order + 1 :] + places[:order]
            indices[sample, place] = torch.tensor(
                [sample * frames + others[k % len(others)] for k in range(wanted)]
            )
    return indices


def _boxes(model: Any, inputs: Inputs, positions: Mapping[str, int]) -> list[dict[str, Tensor]]:
    """Two objects a picture: their classes, and their boxes by centre, width and height as shares of the picture."""
    classes = torch.arange(2) % max(1, int(getattr(model.config, "num_labels", 2) or 2))
    return [
        {
            "class_labels": classes,
            "boxes": torch.cat([(box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2]], 1),
        }
        for box in samples.boxes(2)
    ]


def _yes(model: Any, inputs: Inputs, positions: Mapping[str, int]) -> bool:
    return True


_MAKERS: Mapping[str, Callable[[Any, Inputs, Mapping[str, int]], Any]] = {
    "words": _words,
    "masked-words": _masked_words,
    "masked-words-and-regions": _masked_words_and_regions,
    "decoder-words": _decoder_words,
    "next-words": _next_words,
    "words-and-frames": _words_and_frames,
    "spoken": _spoken,
    "replaced": _replaced,
    "transcript": _transcript,
    "pairs": _pairs,
    "classes": _classes,
    "answers": _answers,
    "objects": _objects,
    "masked-patches": _masked_patches,
    "masked-frames": _masked_frames,
    "distractors": _distractors,
    "boxes": _boxes,
    "yes": _yes,
}
