"""Probes a checkpoint: the same measures on real weights, and a check that only trained weights can pass.

A checkpoint is a directory or a repository of the hub. Only a repository's weights (safetensors), configuration and tokenizer are fetched, before
the network is closed; code that comes with a checkpoint is never run.

The check is in English, six questions each, and suits what the checkpoint's class was trained for: a masked model fills in a blank, a causal one
goes on with a sentence (the word must be among the ten likeliest), an encoder without a head puts a sentence nearer to its paraphrase, which shares no
content word with it, than to a sentence that shares its words and not its meaning. Untrained weights fail all three: measured on randomly initialised
MiniLM, none of six paraphrases is the nearer one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from ptmkb.catalogue import Catalogue, Model
from ptmkb.probe import children
from ptmkb.probe.findings import Findings, Silence, joined
from ptmkb.probe.offline import attempts_elsewhere, refuse_network
from ptmkb.probe.probing import measurements, warm
from ptmkb.probe.record import ClaimRecord, Measurement, ModelRecord
from ptmkb.probe.subjects import subject_of
from ptmkb.probe.verdicts import judge, pending

SANITY = "sanity"
SECONDS = 1800.0
_FETCHED = ["*.json", "*.safetensors", "*.txt", "*.model"]
_COPIES = 10  # of the weights, in float32, that measures may hold at once
_LIKELIEST = 10

SENTENCES = (
    ("The capital of France is", ("paris",)),
    ("Two plus two equals", ("four", "4")),
    ("The opposite of hot is", ("cold", "cool")),
    ("The sky is clear and", ("blue", "bright", "sunny")),
    ("She unlocked the door and went", ("inside", "outside", "upstairs")),
    ("Cows give", ("milk",)),
)
"""Beginnings, and words that may follow."""

MEANINGS = (
    ("A man is eating his dinner.", "Somebody has an evening meal.", "A man is painting his house."),
    ("The children play football in the park.", "Kids kick a ball around outdoors.", "The children sleep quietly in the bus."),
    ("The company will hire new engineers.", "The firm is looking for technical staff.", "The company will sell old buildings."),
    ("She bought a used car last week.", "A woman acquired a second-hand vehicle recently.", "She wrote a long letter last week."),
    ("The doctor treated the sick girl.", "A physician cured a young patient.", "The teacher praised the tall girl."),
    ("It rained heavily during the night.", "There was a downpour after dark.", "It snowed rarely during the war."),
)  # fmt: skip
"""Sentences, each with one that means the same and one that is worded alike."""


class CheckpointError(Exception):
    """There is no such checkpoint, or it cannot be used; one line."""


def fetch(where: str) -> Path:
    """The checkpoint's directory; a hub's repository is downloaded into the hub's own cache.

    Raises:
        CheckpointError: There is no such directory or repository.
    """
    path = Path(where)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise CheckpointError(
                f"{where} holds no config.json: it is no checkpoint that `save_pretrained` wrote"
            )
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(where, allow_patterns=_FETCHED))
    except HFValidationError:
        raise CheckpointError(f"{where} is neither a directory nor a repository's name") from None
    except Exception as error:
        raise CheckpointError(f"{where} cannot be fetched: {children.reason(error)}") from error


def probe_checkpoint(where: str, path: Path, catalogue: Catalogue, entry: Model | None = None) -> ModelRecord:
    """Measure a checkpoint in a child without a network.

    Args:
        where: What it is called.
        path: Its directory.
        catalogue: Where categories are.
        entry: Whose claims are judged by it, if any.

    Returns:
        The record; `failed` where a measure raises, a claim is refuted, or the check fails.
    """
    warm()
    weights = sum(file.stat().st_size for file in path.iterdir() if file.suffix in (".safetensors", ".bin"))
    limits = children.Limits(seconds=SECONDS, memory=4 * children.GIB + 2 * _COPIES * weights)

    def task() -> bytes:
        attempts = refuse_network()
        torch.set_num_threads(1)
        transformers.logging.set_verbosity_error()
        for piece in findings(where, path):
            children.emit(piece.model_dump_json().encode())
        tried = dict.fromkeys([*attempts, *attempts_elsewhere()])
        last = Findings(silences=tuple(Silence(measure=None, why=why, failed=True) for why in tried))
        return last.model_dump_json().encode()

    (outcome,) = children.run({where: task}, limits=limits)
    said = outcome.pieces if outcome.result is None else (*outcome.pieces, outcome.result)
    found = joined(Findings.model_validate_json(piece) for piece in said)
    claims = tuple(_judged(entry, catalogue, where, found, outcome.why)) if entry else ()
    broken = dict.fromkeys(one.why for one in found.silences if one.failed)
    if outcome.why is not None:
        broken[outcome.why] = None
    refuted = [claim.measure for claim in claims if claim.verdict == "refuted"]
    senseless = [one for one in found.measured if one.measure == SANITY and not one.value["passed"]]
    why = [*broken]
    why += [f"{len(refuted)} of {len(claims)} claims refuted: {'; '.join(refuted)}"] if refuted else []
    why += [
        f"its weights make no sense: {one.value['right']} of {one.value['of']} in {one.value['kind']}"
        for one in senseless
    ]
    return ModelRecord(
        id=where,
        status="failed" if why else "passed",
        why="; ".join(why) or None,
        seconds=round(outcome.seconds, 2),
        claims=claims,
        measured=found.measured,
    )


def _judged(
    entry: Model, catalogue: Catalogue, where: str, found: Findings, died: str | None
) -> Iterator[ClaimRecord]:
    """Claims that hold for all sizes, and those about the size that this is."""
    sizes = {None, *(variant.name for variant in entry.variants if variant.hub == where)}
    reasons: dict[tuple[str, str | None], str] = {
        (one.measure, None): one.why for one in found.silences if one.measure is not None
    }
    measured = {one.measure for one in found.measured}
    for claim in pending(entry, catalogue):
        if claim.variant in sizes:
            if died is not None and claim.measure not in measured:
                reasons.setdefault((claim.measure, None), died)
            verdict = judge(replace(claim, variant=None), found.measured, reasons)
            yield verdict.model_copy(update={"variant": claim.variant})


def load(path: Path) -> tuple[nn.Module, Any]:
    """A checkpoint's model in float32 and `eval` mode, and its tokenizer (None where it has none).

    Raises:
        CheckpointError: Its class is not one of `transformers`.
    """
    config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    name = (config.architectures or [None])[0]
    cls: Any = AutoModel if name is None else getattr(transformers, name, None)
    if cls is None:
        raise CheckpointError(
            f"its class {name} is not one of transformers, and a checkpoint's own code is never run"
        )
    more = {"trust_remote_code": False} if cls is AutoModel else {}
    model: nn.Module = cls.from_pretrained(path, dtype=torch.float32, **more).eval()
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError):
        tokenizer = None
    return model, tokenizer


def findings(where: str, path: Path) -> Iterator[Findings]:
    """Everything that is measured on a checkpoint, the check first."""
    try:
        model, tokenizer = load(path)
    except CheckpointError as error:
        raise children.TaskFailedError(str(error)) from None
    yield Findings(begun=((SANITY, None),))
    yield sanity(model, tokenizer)
    yield from measurements(subject_of(model, where))


def sanity(model: nn.Module, tokenizer: Any) -> Findings:
    """Whether the weights have learnt something, by what suits the model's class."""
    name = type(model).__name__
    if tokenizer is None:
        return _silent("it has no tokenizer")
    if name.endswith("ForMaskedLM") and tokenizer.mask_token:
        kind, answers = "fill-mask", _words(model, tokenizer, masked=True)
    elif name.endswith(("ForCausalLM", "LMHeadModel")):
        kind, answers = "continuation", _words(model, tokenizer, masked=False)
    elif name.endswith("Model") and not getattr(model.config, "is_encoder_decoder", False):
        kind, answers = "similarity", _nearer(model, tokenizer)
    else:
        return _silent(f"there is no such check for {name}")
    right = sum(answer for answer, _ in answers)
    value = {"kind": kind, "right": right, "of": len(answers), "passed": 2 * right > len(answers)}
    detail = {"answers": [told for _, told in answers]}
    return Findings(measured=(Measurement(measure=SANITY, value=value, detail=detail),))


def _silent(why: str) -> Findings:
    return Findings(silences=(Silence(measure=SANITY, why=why),))


def _words(model: Any, tokenizer: Any, masked: bool) -> list[tuple[bool, str]]:
    """For each beginning, whether one of its words is among the likeliest next, and which these are."""
    answers = []
    for beginning, wanted in SENTENCES:
        text = f"{beginning} {tokenizer.mask_token}." if masked else beginning
        batch = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            logits: Tensor = model(**batch).logits[0]
        at = int((batch["input_ids"][0] == tokenizer.mask_token_id).nonzero()[0]) if masked else -1
        likeliest = [
            tokenizer.decode([int(token)]).strip().lower() for token in logits[at].topk(_LIKELIEST).indices
        ]
        answers.append((any(word in wanted for word in likeliest), f"{beginning} … {', '.join(likeliest)}"))
    return answers


def _nearer(model: Any, tokenizer: Any) -> list[tuple[bool, str]]:
    """For each sentence, whether what means the same is nearer (cosine of mean hidden states) than what is worded alike."""
    answers = []
    for sentences in MEANINGS:
        batch = tokenizer(list(sentences), return_tensors="pt", padding=True)
        with torch.no_grad():
            hidden: Tensor = model(**batch).last_hidden_state  # (3, positions, width)
        kept = batch["attention_mask"][..., None]
        means = nn.functional.normalize((hidden * kept).sum(1) / kept.sum(1), dim=-1)  # (3, width)
        meaning, wording = (float(means[0] @ means[other]) for other in (1, 2))
        answers.append(
            (meaning > wording, f"{sentences[0]} {meaning:.3f} {sentences[1]} {wording:.3f} {sentences[2]}")
        )
    return answers
