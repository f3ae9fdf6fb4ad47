from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForMaskedLM, BertConfig

from ptmkb.catalogue import Catalogue, load_catalogue
from ptmkb.probe import tiny
from ptmkb.probe.inputs import configurations
from ptmkb.probe.shrinking import HEADS, VOCABULARY, WIDTH, WINDOW, channels, shrunk

CATALOGUE = load_catalogue()
MODELS = sorted(CATALOGUE.models)
OF_TRANSFORMERS = [m for m in MODELS if CATALOGUE.models[m].implementation.kind == "transformers"]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return CATALOGUE


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    "data", sorted((Path(tiny.__file__).parent / "data").glob("*.yaml")), ids=lambda path: path.name
)
def test_nothing_is_said_twice_in_the_data(data: Path) -> None:
    waiting, repeated = [yaml.compose(data.read_text(encoding="utf-8"))], []
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            repeated += [key for key in set(keys) if keys.count(key) > 1]  # of two, only the last would count
            waiting += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
    assert not repeated


@pytest.mark.parametrize("model_id", MODELS)
def test_every_catalogued_model_is_small_and_its_weights_are_numbers(model_id: str) -> None:
    model = tiny.build_entry(CATALOGUE.models[model_id])
    assert 1_000 < parameters(model) <= 2_000_000
    assert not model.training
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter).all(), name
        assert parameter.any(), f"{name} is all zeros: what is multiplied by it could not be seen"


def test_the_seed_decides_the_weights() -> None:
    one, same, other = (tiny.build("bert", seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(
        one["bert.embeddings.word_embeddings.weight"], other["bert.embeddings.word_embeddings.weight"]
    )


def test_building_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    tiny.build("gpt2")
    assert torch.equal(torch.rand(3), expected)


def test_what_differs_by_design_stays_different() -> None:
    mistral = tiny.tiny_config("mistral")
    assert mistral.num_key_value_heads < mistral.num_attention_heads
    assert mistral.sliding_window == WINDOW
    llama = tiny.tiny_config("llama")
    assert llama.num_key_value_heads == llama.num_attention_heads
    albert = tiny.tiny_config("albert")
    assert albert.embedding_size < albert.hidden_size
    mixtral = tiny.tiny_config("mixtral")
    assert 1 < mixtral.num_experts_per_tok < mixtral.num_local_experts
    bert = tiny.tiny_config("bert")
    assert bert.intermediate_size > bert.hidden_size


def test_every_kind_of_layer_keeps_a_layer() -> None:
    gemma = tiny.tiny_config("gemma2")
    assert set(gemma.layer_types) == {"sliding_attention", "full_attention"}
    assert len(gemma.layer_types) == gemma.num_hidden_layers == 2
    qwen = tiny.tiny_config("qwen3_next")
    assert set(qwen.layer_types) == {"linear_attention", "full_attention"}


@pytest.mark.parametrize("model_id", OF_TRANSFORMERS)
def test_special_tokens_lie_inside_the_vocabulary(model_id: str) -> None:
    config = tiny.tiny_config(CATALOGUE.models[model_id].implementation.model_type)
    for nested in configurations(config):
        size = getattr(nested, "vocab_size", VOCABULARY)
        assert size <= VOCABULARY
        for name, value in vars(nested).items():
            if name.endswith("token_id") and isinstance(value, int):
                assert value < size, name


def test_the_same_special_token_gets_the_same_place_and_different_ones_different_places() -> None:
    config = shrunk(BertConfig(bos_token_id=30001, eos_token_id=30001, pad_token_id=0, sep_token_id=30002))
    assert config.bos_token_id == config.eos_token_id
    assert config.pad_token_id == 0
    assert config.bos_token_id < config.vocab_size


def test_overrides_reach_into_nested_configurations() -> None:
    config = tiny.tiny_config("clip", {"text_config.num_hidden_layers": 3, "projection_dim": 24})
    assert config.text_config.num_hidden_layers == 3
    assert config.vision_config.num_hidden_layers == 2
    assert config.projection_dim == 24


def test_a_saved_model_loads_again(tmp_path) -> None:
    model = tiny.build("roberta", "RobertaForMaskedLM")
    model.save_pretrained(tmp_path)
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path)
    ids = torch.tensor([[10, 11, 12]])
    assert torch.equal(model(ids).logits, loaded.eval()(ids).logits)


def test_the_default_class_has_the_pretraining_head() -> None:
    expected = {
        "bert": "BertForPreTraining",
        "roformer": "RoFormerForMaskedLM",  # has a causal head too
        "bart": "BartForConditionalGeneration",
        "pegasus": "PegasusForConditionalGeneration",  # a causal LM would be its decoder only
        "whisper": "WhisperForConditionalGeneration",
        "clip": "CLIPModel",
        "mamba": "MambaForCausalLM",
        "vits": "VitsModel",
    }
    assert {name: tiny.architectures(name)[0] for name in expected} == expected


def test_unknown_names_are_refused() -> None:
    with pytest.raises(tiny.UnknownModelTypeError, match="no model type `brt`"):
        tiny.build("brt")
    with pytest.raises(LookupError, match="no class `BertForNothing`"):
        tiny.build("bert", "BertForNothing")
    with pytest.raises(LookupError, match="no variant `bert-huge`"):
        tiny.variant(CATALOGUE.models["bert"], "bert-huge")


def test_a_variant_is_full_size_and_holds_no_numbers() -> None:
    model = tiny.variant(CATALOGUE.models["bert"], "bert-base-uncased")
    assert parameters(model) == 109_482_240
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert type(model).__name__ == "BertModel"


def test_what_a_class_leaves_to_the_published_configuration_is_filled_in() -> None:
    deepseek = tiny.tiny_config("deepseek_v2")
    assert 1 < deepseek.num_experts_per_tok < deepseek.n_routed_experts
    assert tiny.tiny_config("hunyuan_v1_dense").head_dim == WIDTH // HEADS


def test_another_kind_of_nested_configuration_is_made_small_too() -> None:
    config = tiny.tiny_config("detr")
    assert config.backbone_config.model_type == "resnet"
    assert config.backbone_config.out_indices == [4]
    assert max(config.backbone_config.hidden_sizes) < 256


def test_a_backbone_gives_as_many_stages_as_before() -> None:
    config = tiny.tiny_config("rf_detr").backbone_config
    assert len(config.out_indices) == 4
    assert max(config.out_indices) == config.num_hidden_layers


def test_channels_that_are_equal_stay_equal() -> None:
    assert channels(3) == 3
    assert channels(512) == channels(512) < channels(1024)
