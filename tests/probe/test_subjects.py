import pytest
import torch

from ptmkb.catalogue import load_catalogue
from ptmkb.probe import tiny
from ptmkb.probe.measures import Unmeasurable, learns, objective
from ptmkb.probe.numerics import in_float64, tensors_in
from ptmkb.probe.stacks import CROSS, JOINT
from ptmkb.probe.subjects import ready_inputs, settled, subject_for, subject_of_type

CATALOGUE = load_catalogue()


def influence(subject, source: str, position: int, inputs=None) -> dict[str, str]:
    """Which output positions a replaced input position moves, as 0 and 1."""
    inputs = subject.inputs if inputs is None else inputs
    changed = subject.streams[source].replaced(inputs, position, torch.Generator().manual_seed(5))
    torch.manual_seed(0)
    before = subject.outputs(inputs)
    torch.manual_seed(0)
    after = subject.outputs(changed)
    return {
        name: "".join("01"[bool((before[name][:, i] - after[name][:, i]).abs().max() > 1e-6)] for i in range(before[name].shape[1]))
        for name in before
    }  # fmt: skip


@pytest.mark.parametrize("model_id", sorted(CATALOGUE.models))
def test_every_catalogued_model_is_a_subject(model_id: str) -> None:
    subject = subject_for(CATALOGUE.models[model_id])
    outputs = subject.outputs()
    assert subject.streams
    assert subject.blocks, "its repeated layers are found"
    for name, stream in subject.streams.items():
        if name in outputs:
            assert outputs[name].shape[:2] == (2, stream.positions)
        # A replaced position changes in both samples, and nothing else that goes in does.
        changed = stream.replaced(subject.inputs, 2, torch.Generator().manual_seed(0))
        for key, value in subject.inputs.items():
            if changed[key] is not value:
                different = (changed[key] != value).flatten(1).any(1)
                assert different.all(), key
        moved = influence(subject, name, 2)
        assert any("1" in row for row in moved.values())
    for output in outputs.values():
        assert torch.isfinite(output).all()
    for loss in subject.losses:
        value = subject.model(**dict(loss.inputs)).loss
        assert torch.isfinite(value)
        assert value > 0
        assert set(loss.labels) <= set(loss.inputs)


def test_a_replaced_token_is_always_another_token() -> None:
    subject = subject_of_type("bert")
    ids = subject.inputs["input_ids"]
    for seed in range(50):
        changed = subject.streams["text"].replaced(subject.inputs, 4, torch.Generator().manual_seed(seed))[
            "input_ids"
        ]
        assert ((changed != ids).nonzero()[:, 1] == 4).all()
        assert (changed[:, 4] != ids[:, 4]).all()


def test_positions_line_up_with_outputs() -> None:
    assert influence(subject_of_type("gpt2"), "text", 3) == {"text": "000111111111"}
    assert influence(subject_of_type("mistral"), "text", 3) == {
        "text": "000111111100"
    }  # 2 layers of a window of 4
    bart = subject_of_type("bart")
    assert influence(bart, "decoder", 3) == {"encoder": "0" * 12, "decoder": "0001111111"}
    elmo = subject_for(CATALOGUE.models["elmo"])
    assert influence(elmo, "text", 3) == {"forward": "000111111111", "backward": "111100000000"}


def test_class_tokens_are_taken_off() -> None:
    vit = subject_of_type("vit", "ViTModel")
    assert vit.streams["image"].positions == vit.outputs()["image"].shape[1] == 16
    # With attention cut off, a patch moves nothing but its own position: that shows that patch i is read at position i.
    for name, module in vit.model.named_modules():
        if name.endswith(("o_proj", "attention.output.dense")):
            torch.nn.init.zeros_(module.weight)
    for position in (0, 5, 15):
        assert influence(vit, "image", position)["image"] == "".join("01"[i == position] for i in range(16))


@pytest.mark.parametrize(
    ("model_type", "streams"),
    [
        ("qwen2_5_vl_vision", {"image": 16}),  # the patches of both samples in one row
        ("vjepa2", {"video": 32}),  # two layers of patches
        ("decision_transformer", {"return": 12, "state": 12, "action": 12}),
        ("parakeet_rnnt", {"encoder": 3, "decoder": 10}),
        ("mimi_decoder", {"audio": 6}),
        ("patchtst", {"series": 32}),
        ("detr", {"image": 4}),
        ("grounding-dino", {"text": 12, "image": 22}),
    ],
)
def test_streams_of_every_kind(model_type: str, streams: dict[str, int]) -> None:
    subject = subject_of_type(model_type)
    assert {name: stream.positions for name, stream in subject.streams.items()} == streams
    before = subject.outputs()
    for name, stream in subject.streams.items():
        if name in before:
            assert before[name].shape[:2] == (2, stream.positions)
        for position in range(0, stream.positions, 5):
            changed = stream.replaced(subject.inputs, position, torch.Generator().manual_seed(0))
            after = subject.outputs(changed)
            assert any(not torch.equal(after[key], before[key]) for key in before), (name, position)


def test_a_model_without_positions_says_so() -> None:
    subject = subject_of_type("sam2_video")
    assert not subject.streams
    with pytest.raises(Unmeasurable, match="no positions"):
        subject.outputs()


@pytest.mark.parametrize("model_type", ["mobilenet_v2", "efficientnet", "hgnet_v2", "deimv2"])
def test_deep_convolutions_let_a_picture_through(model_type: str) -> None:
    subject = subject_of_type(model_type)
    pixels = subject.inputs["pixel_values"]
    returned = []
    for values in (pixels, pixels.flip(-1)):
        with torch.no_grad():
            returned.append(dict(tensors_in(subject.model(**{**subject.inputs, "pixel_values": values}))))
    one, other = returned
    place = "encoder_last_hidden_state.0" if model_type == "deimv2" else "last_hidden_state"
    place = place if place in one else next(name for name in one if name.startswith("hidden_states"))
    scale = float(one[place].abs().max())
    assert float((one[place] - other[place]).abs().max()) > 1e-3 * scale > 0


def test_norms_that_have_learned_something_keep_it() -> None:
    model = tiny.build("resnet")
    norm = next(module for module in model.modules() if hasattr(module, "running_mean"))
    norm.running_mean.fill_(0.25)
    inputs = ready_inputs(model)
    assert norm.running_mean.eq(0.25).all()
    untouched = tiny.build("resnet")
    others = [module for module in untouched.modules() if hasattr(module, "running_mean")]
    assert not any(module.running_mean.any() for module in others)
    ready_inputs(untouched)
    assert all(module.running_mean.any() for module in others)
    with torch.no_grad():
        first = untouched(**inputs)
        settled(untouched, inputs)
        assert torch.equal(untouched(**inputs).logits, first.logits), "done once"


def test_what_a_run_leaves_in_a_session_the_next_does_not_find() -> None:
    subject = subject_of_type("sam2_video")
    ran: list[str] = []
    for path, module in subject.model.named_modules():
        if path in ("memory_attention.layers.0", "mask_decoder", "vision_encoder"):
            module.register_forward_hook(lambda *_, path=path: ran.append(path))
    with torch.no_grad():
        scores = [subject.model(**subject.inputs).object_score_logits for _ in range(2)]
    assert torch.equal(*scores)
    assert len(set(ran)) == 3, "the frame is looked at, and the memory of the one before"
    assert ran[: len(ran) // 2] == ran[len(ran) // 2 :]
    changed = {**subject.inputs, "frame": subject.inputs["frame"].flip(-1)}
    with torch.no_grad():
        assert not torch.equal(subject.model(**changed).object_score_logits, scores[0])


@pytest.mark.parametrize("model_type", ["omdet-turbo", "sam2_video"])
def test_what_is_remembered_in_objects_is_doubled_too(model_type: str) -> None:
    subject = subject_of_type(model_type)
    with torch.no_grad():
        subject.model(**subject.inputs)  # fills what remembers
        doubled = subject.doubled()
        with in_float64():
            returned = doubled.model(**doubled.inputs)
        again = subject.model(**subject.inputs)
    wide = [tensor for _, tensor in tensors_in(returned) if tensor.is_floating_point()]
    assert wide
    assert {tensor.dtype for tensor in wide} == {torch.float64}
    narrow = [tensor for _, tensor in tensors_in(again) if tensor.is_floating_point()]
    assert {tensor.dtype for tensor in narrow} == {torch.float32}, "the subject itself is left alone"


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ("fsmt", "sequence-to-sequence"),
        ("parakeet_ctc", "ctc"),
        ("siglip", "contrastive"),
        ("patchtst", "regression"),
        ("funnel", "replaced-token"),
        ("detr", "unknown"),
        ("clvp", "contrastive"),
        ("roc_bert", "masked"),
        ("wav2vec2-conformer", "contrastive"),
        ("align", "contrastive"),  # labels smoothed
        ("parakeet_tdt", "unknown"),
        ("pocket_tts", "unknown"),
        ("higgs_audio_v2", "unknown"),
    ],
)
def test_losses_of_every_kind(model_type: str, expected: str) -> None:
    reading = objective.measure(subject_of_type(model_type))[None]
    assert reading.value == expected
    if expected == "unknown":
        assert reading.detail["loss"] > 0
        assert reading.detail["why"] == "loss computed, formula not recognised"


@pytest.mark.parametrize(
    ("model_type", "why"),
    [("omdet-turbo", "not implemented"), ("parakeet_rnnt", "torchaudio"), ("vit_mae", None), ("clip_text_model", "no loss")],
)  # fmt: skip
def test_a_model_without_a_loss_says_why(model_type: str, why: str | None) -> None:
    subject = subject_of_type(model_type)
    assert bool(subject.losses) is (why is None)
    for measure in (learns, objective):
        if why is not None:
            with pytest.raises(Unmeasurable, match=why):
                measure.measure(subject)


def test_modes() -> None:
    unilm = subject_for(CATALOGUE.models["unilm"])
    rows = {
        mode.name: influence(unilm, "text", 3, {**unilm.inputs, **mode.inputs})["text"]
        for mode in unilm.modes
    }
    assert rows["bidirectional"] == "1" * 12
    assert rows["left-to-right"] == "000111111111"
    assert rows["right-to-left"] == "111100000000"
    xlnet = subject_of_type("xlnet")
    content, query = xlnet.modes
    assert (content.name, query.name) == ("content", "query")
    hidden = content.inputs["perm_mask"][0]
    # The query stream at a position never sees that position itself; the content stream does. (The first of the order, which has
    # nothing to look at, is no example: a softmax over nothing but masked scores is even over all.)
    second = int((hidden.sum(1) == 11).nonzero())
    assert influence(xlnet, "text", second, {**xlnet.inputs, **content.inputs})["text"][second] == "1"
    assert influence(xlnet, "text", second, {**xlnet.inputs, **query.inputs})["text"][second] == "0"
    assert (hidden + hidden.T).fill_diagonal_(1).eq(1).all(), "a total order"


def test_stacks() -> None:
    def counted(model_id: str, variant: str | None = None) -> dict[str, int]:
        return {
            name: len(found)
            for name, found in subject_for(CATALOGUE.models[model_id], variant).blocks.items()
        }

    assert counted("bart", "bart-base") == {"encoder": 6, "decoder": 6}
    assert counted("clip", "clip-vit-base-patch32") == {"text": 12, "image": 12}
    assert counted("lxmert", "lxmert-base-uncased") == {"text": 9, "image": 5, CROSS: 5}
    assert set(counted("visual_bert")) == {JOINT}
    albert = subject_of_type("albert")
    first, second = albert.blocks["text"]
    assert first is second, "one block that runs twice"


def test_every_variant_can_be_run_without_numbers() -> None:
    for model_id in ("gpt3", "mixtral", "mamba", "vilt", "roberta"):
        entry = CATALOGUE.models[model_id]
        subject = subject_for(entry, entry.variants[-1].name)
        assert subject.scale == entry.variants[-1].name
        assert {value.device.type for value in subject.outputs().values()} == {"meta"}
        assert subject.blocks
