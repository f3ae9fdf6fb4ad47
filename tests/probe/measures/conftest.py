"""Small real models of `transformers`, each made a subject by hand, so that the measures are tested without the rules that build subjects."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers as t
from torch import Tensor

from ptmkb.probe.subject import Loss, Mode, Stream, Subject

TOKENS, VOCABULARY, WIDTH = 12, 50, 16
torch.set_num_threads(1)


def token_stream(name: str = "text", argument: str = "input_ids", length: int = TOKENS) -> Stream:
    def replaced(inputs: Any, position: int, generator: torch.Generator) -> dict[str, Any]:
        ids = inputs[argument].clone()
        step = torch.randint(1, VOCABULARY - 4, (len(ids),), generator=generator)
        ids[:, position] = 4 + (ids[:, position] - 4 + step) % (VOCABULARY - 4)
        return {**inputs, argument: ids}

    return Stream(name, length, replaced)


def value_stream(name: str, argument: str, positions: int, place: Callable[[Tensor, int], Any]) -> Stream:
    def replaced(inputs: Any, position: int, generator: torch.Generator) -> dict[str, Any]:
        values = inputs[argument].clone()
        part = values[place(values, position)]
        values[place(values, position)] = torch.randn(part.shape, generator=generator, dtype=values.dtype)
        return {**inputs, argument: values}

    return Stream(name, positions, replaced)


def ids(seed: int = 1, length: int = TOKENS) -> Tensor:
    return torch.randint(4, VOCABULARY, (2, length), generator=torch.Generator().manual_seed(seed))


def masked_labels() -> Tensor:
    labels = ids(2)
    labels[0, ::2] = -100
    labels[1, :3] = -100
    return labels


def bert() -> Subject:
    config = t.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=40,
        max_position_embeddings=32,
    )
    model = t.BertForMaskedLM(config)
    return text_subject("bert", model, model.bert.encoder.layer, masked_labels())


def albert() -> Subject:
    config = t.AlbertConfig(
        vocab_size=VOCABULARY,
        embedding_size=8,
        hidden_size=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=40,
    )
    model = t.AlbertForMaskedLM(config)
    return text_subject("albert", model, model.albert.encoder.albert_layer_groups, masked_labels())


def electra() -> Subject:
    config = t.ElectraConfig(
        vocab_size=VOCABULARY,
        embedding_size=8,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=40,
    )
    model = t.ElectraForPreTraining(config)
    return text_subject("electra", model, model.electra.encoder.layer, (ids(3) > 20).long())


def gpt2() -> Subject:
    config = t.GPT2Config(
        vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=2, n_head=4, n_positions=32, n_inner=40
    )
    model = t.GPT2LMHeadModel(config)
    return text_subject("gpt2", model, model.transformer.h, masked_labels())


def llama_like(kind: str, **more: Any) -> t.PretrainedConfig:
    return getattr(t, kind)(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=40, head_dim=8,
        max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, **more,
    )  # fmt: skip


def llama() -> Subject:
    model = t.LlamaForCausalLM(llama_like("LlamaConfig"))
    return text_subject("llama", model, model.model.layers, masked_labels())


def mistral(window: int = 4) -> Subject:
    model = t.MistralForCausalLM(llama_like("MistralConfig", sliding_window=window))
    return text_subject("mistral", model, model.model.layers, masked_labels())


def gemma2() -> Subject:
    model = t.Gemma2ForCausalLM(llama_like("Gemma2Config", sliding_window=4))
    return text_subject("gemma2", model, model.model.layers, masked_labels())


def mixtral() -> Subject:
    config = llama_like("MixtralConfig", num_local_experts=4, num_experts_per_tok=2, sliding_window=None)
    model = t.MixtralForCausalLM(config)
    return text_subject("mixtral", model, model.model.layers, masked_labels())


def mamba() -> Subject:
    config = t.MambaConfig(vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=2, state_size=4)
    model = t.MambaForCausalLM(config)
    return text_subject("mamba", model, model.backbone.layers, masked_labels())


def text_subject(name: str, model: torch.nn.Module, blocks: Any, labels: Tensor) -> Subject:
    options = {"output_hidden_states": True}
    if "use_cache" in type(model).forward.__code__.co_varnames:
        options["use_cache"] = False
    inputs = {"input_ids": ids(), **options}
    return Subject(
        name, model.eval(), inputs, {"text": token_stream()}, lambda output: {"text": output.hidden_states[-1]},
        losses=(Loss(None, {**inputs, "labels": labels}, ("labels",)),), blocks={"text": tuple(blocks)},
    )  # fmt: skip


def t5() -> Subject:
    config = t.T5Config(
        vocab_size=VOCABULARY,
        d_model=WIDTH,
        d_kv=4,
        d_ff=40,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        pad_token_id=0,
    )
    model = t.T5ForConditionalGeneration(config)
    return encoder_decoder(
        "t5", model, model.encoder.block, model.decoder.block, {"input_ids": ids()}, token_stream("encoder")
    )


def whisper() -> Subject:
    config = t.WhisperConfig(
        vocab_size=VOCABULARY, d_model=WIDTH, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=40, decoder_ffn_dim=40, num_mel_bins=8, max_source_positions=TOKENS, max_target_positions=32,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3,
    )  # fmt: skip
    model = t.WhisperForConditionalGeneration(config)
    features = torch.randn(2, 8, 2 * TOKENS, generator=torch.Generator().manual_seed(5))
    stream = value_stream(
        "encoder",
        "input_features",
        TOKENS,
        lambda _, at: (slice(None), slice(None), slice(2 * at, 2 * at + 2)),
    )
    return encoder_decoder(
        "whisper",
        model,
        model.model.encoder.layers,
        model.model.decoder.layers,
        {"input_features": features},
        stream,
    )


def encoder_decoder(
    name: str, model: Any, encoder: Any, decoder: Any, source: dict[str, Tensor], stream: Stream
) -> Subject:
    options = {"use_cache": False, "output_hidden_states": True}
    return Subject(
        name, model.eval(), {**source, "decoder_input_ids": ids(6), **options},
        {"encoder": stream, "decoder": token_stream("decoder", "decoder_input_ids")},
        lambda output: {"encoder": output.encoder_last_hidden_state, "decoder": output.decoder_hidden_states[-1]},
        losses=(Loss(None, {**source, "labels": masked_tail(), **options}, ("labels",)),),
        blocks={"encoder": tuple(encoder), "decoder": tuple(decoder)},
    )  # fmt: skip


def masked_tail() -> Tensor:
    labels = ids(2)
    labels[0, 8:] = -100
    return labels


def xlnet() -> Subject:
    config = t.XLNetConfig(vocab_size=VOCABULARY, d_model=WIDTH, n_layer=2, n_head=4, d_inner=40)
    model = t.XLNetLMHeadModel(config)
    order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(3))
    rank = torch.argsort(order)
    later = (
        (rank[None, :] >= rank[:, None]).float().expand(2, -1, -1)
    )  # [b, i, j] = 1: i does not attend to j
    each = torch.eye(TOKENS).expand(2, -1, -1)
    inputs = {"input_ids": ids(), "use_mems": False, "output_hidden_states": True}
    permuted = {**inputs, "perm_mask": later, "target_mapping": each}
    return Subject(
        "xlnet", model.eval(), inputs, {"text": token_stream()}, xlnet_read,
        modes=(Mode("content", {"perm_mask": later}), Mode("query", {"perm_mask": later, "target_mapping": each})),
        losses=(Loss(None, {**permuted, "labels": masked_labels()}, ("labels",)),),
        blocks={"text": tuple(model.transformer.layer)},
    )  # fmt: skip


def xlnet_read(output: Any) -> dict[str, Tensor]:
    last = output.hidden_states[-1]  # (content, query) where there is a query stream
    return {"text": last[-1] if isinstance(last, tuple) else last}


def clip() -> Subject:
    text = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
            "max_position_embeddings": 32, "eos_token_id": 49, "bos_token_id": 48}  # fmt: skip
    vision = {
        "hidden_size": 24,
        "intermediate_size": 56,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 12,
        "patch_size": 4,
    }
    model = t.CLIPModel(t.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    inputs = {
        "input_ids": ids(),
        "pixel_values": torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(4)),
    }

    def patch(_: Tensor, at: int) -> Any:
        row, column = divmod(at, 3)
        return slice(None), slice(None), slice(4 * row, 4 * row + 4), slice(4 * column, 4 * column + 4)

    return Subject(
        "clip", model.eval(), inputs, {"text": token_stream(), "image": value_stream("image", "pixel_values", 9, patch)},
        lambda output: {"text": output.text_model_output.last_hidden_state, "image": output.vision_model_output.last_hidden_state[:, 1:]},
        losses=(Loss(None, {**inputs, "return_loss": True}, ()),),
        blocks={"text": tuple(model.text_model.encoder.layers), "image": tuple(model.vision_model.encoder.layers)},
    )  # fmt: skip


def vit() -> Subject:
    config = t.ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=40,
        image_size=12,
        patch_size=4,
        num_labels=5,
    )
    model = t.ViTForImageClassification(config)
    clip_subject = clip()
    inputs = {"pixel_values": clip_subject.inputs["pixel_values"], "output_hidden_states": True}
    return Subject(
        "vit", model.eval(), inputs, {"image": clip_subject.streams["image"]}, lambda output: {"image": output.hidden_states[-1][:, 1:]},
        losses=(Loss(None, {**inputs, "labels": torch.tensor([1, 3])}, ("labels",)),),
        blocks={"image": tuple(next(m for m in model.vit.modules() if isinstance(m, torch.nn.ModuleList)))},
    )  # fmt: skip


def wav2vec2(head: str = "Wav2Vec2ForCTC") -> Subject:
    config = t.Wav2Vec2Config(
        vocab_size=20, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40, conv_dim=(8, 8), conv_stride=(4, 2),
        conv_kernel=(4, 2), num_feat_extract_layers=2, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, mask_time_length=2,
        num_codevectors_per_group=4, codevector_dim=8, proj_codevector_dim=8, num_negatives=5, feat_extract_norm="layer", pad_token_id=0,
    )  # fmt: skip
    model = getattr(t, head)(config)
    waves = torch.randn(2, 8 * TOKENS, generator=torch.Generator().manual_seed(7))
    inputs = {"input_values": waves, "output_hidden_states": True}
    if head == "Wav2Vec2ForCTC":
        labels = {"labels": torch.tensor([[3, 4, 5, 3], [7, 7, 9, 2]])}
    else:
        generator = torch.Generator().manual_seed(8)
        masked = torch.zeros(2, TOKENS, dtype=torch.bool)
        masked[0, 2:7], masked[1, 5:11] = True, True
        negatives = torch.randint(0, TOKENS, (2, TOKENS, 5), generator=generator)
        negatives[1] += TOKENS
        labels = {"mask_time_indices": masked, "sampled_negative_indices": negatives}
    return Subject(
        "wav2vec2", model.eval(), inputs, {"audio": value_stream("audio", "input_values", TOKENS, lambda _, at: (slice(None), slice(8 * at, 8 * at + 8)))},
        lambda output: {"audio": output.hidden_states[-1]},
        losses=(Loss(None, {**inputs, **labels}, tuple(labels)),), blocks={"audio": tuple(model.wav2vec2.encoder.layers)},
    )  # fmt: skip


BUILDERS: dict[str, Callable[..., Subject]] = {
    build.__name__: build
    for build in (
        bert,
        albert,
        electra,
        gpt2,
        llama,
        mistral,
        gemma2,
        mixtral,
        mamba,
        t5,
        whisper,
        xlnet,
        clip,
        vit,
        wav2vec2,
    )
}


@pytest.fixture
def subject() -> Callable[..., Subject]:
    """Builds the subject of a name, always with the same weights."""

    def build(name: str, **options: Any) -> Subject:
        torch.manual_seed(0)
        return replace(BUILDERS[name](**options))

    return build
