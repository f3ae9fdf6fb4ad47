"""What every text reference model has to do, whatever it is."""

import dataclasses

import pytest
import torch
from torch import nn

from ptmkb.reference import load

MODELS = [
    ("transformer", "Transformer"),
    ("elmo", "ELMo"),
    ("transformer_xl", "TransformerXL"),
    ("mass", "MASS"),
    ("unilm", "UniLM"),
]


@pytest.fixture(params=MODELS, ids=[name for _, name in MODELS])
def model_class(request: pytest.FixtureRequest) -> type[nn.Module]:
    return load(*request.param)


def inputs_of(model: nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    return model.dummy_inputs(torch.Generator().manual_seed(seed))


def test_gives_finite_outputs_of_the_promised_shapes(model_class, build):
    model = build(model_class)
    inputs = inputs_of(model)
    output = model(**inputs)
    length = inputs["labels"].shape[1]
    assert output.loss.shape == ()
    assert torch.isfinite(output.loss)
    assert output.logits.shape == (2, length, model.config.vocab_size)
    assert output.last_hidden_state is output.hidden_states[-1]
    assert len(output.hidden_states) == model.config.num_layers + 1
    for state in output.hidden_states:
        assert state.shape == output.last_hidden_state.shape
        assert state.shape[:2] == (2, length)
        assert torch.isfinite(state).all()
        assert state.dtype == torch.float64
    if hasattr(output, "encoder_hidden_states"):
        assert output.encoder_last_hidden_state is output.encoder_hidden_states[-1]
        assert len(output.encoder_hidden_states) == model.config.num_layers + 1
        assert output.encoder_last_hidden_state.shape[:2] == (2, 12)


def test_tiny_is_tiny_and_the_default_is_not(model_class, parameters_at_full_size):
    assert 5_000 < parameters_at_full_size(model_class, model_class.config_class.tiny()) < 200_000
    assert parameters_at_full_size(model_class, model_class.config_class()) > 60_000_000


def test_dummy_inputs_depend_on_the_generator_alone(model_class, build):
    model = build(model_class)
    first, again, other = inputs_of(model, 1), inputs_of(model, 1), inputs_of(model, 2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_runs_at_full_size_without_memory(model_class):
    with torch.device("meta"):
        model = model_class(model_class.config_class())
        inputs = {name: tensor.to("meta") for name, tensor in cpu_inputs(model_class).items()}
        output = model(**inputs)
    assert output.last_hidden_state.device.type == "meta"
    assert output.last_hidden_state.shape[:2] == output.hidden_states[0].shape[:2]


def cpu_inputs(model_class: type[nn.Module]) -> dict[str, torch.Tensor]:
    """Inputs for the default config, made by an object without weights."""
    bare = model_class.__new__(model_class)
    nn.Module.__init__(bare)
    bare.config = model_class.config_class()
    with torch.device("cpu"):
        return bare.dummy_inputs(torch.Generator().manual_seed(0))


def test_dropout_works_in_training_and_is_off_in_eval(model_class, build):
    model = build(model_class)
    inputs = inputs_of(model)
    assert torch.equal(model(**inputs).logits, model(**inputs).logits)
    model.train()
    assert not torch.equal(model(**inputs).logits, model(**inputs).logits)


def test_without_labels_there_is_no_loss(model_class, build):
    model = build(model_class)
    inputs = {name: tensor for name, tensor in inputs_of(model).items() if "label" not in name}
    assert model(**inputs).loss is None


def test_ignored_labels_do_not_count(model_class, build):
    model = build(model_class)
    inputs = inputs_of(model)
    inputs.pop("next_sentence_label", None)
    second_half = inputs["labels"].clone()
    second_half[:1] = -100  # the first sentence of the batch is out
    alone = {name: tensor[1:] for name, tensor in inputs.items()}
    torch.testing.assert_close(model(**{**inputs, "labels": second_half}).loss, model(**alone).loss)


def test_gradients_reach_every_parameter(model_class, build):
    model = build(model_class)
    output = model(**inputs_of(model))
    output.loss.backward(retain_graph=True)
    unreached = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    # ELMo's mix belongs to the task that uses the vectors, not to the language model (section 3.2).
    assert unreached == {name for name, _ in model.named_parameters() if name.startswith("scalar_mix.")}
    if unreached:
        (output.elmo * torch.randn_like(output.elmo)).sum().backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        # A bias on the keys adds the same to all scores of a query: the softmax takes it away again.
        if not name.endswith("key.bias"):
            assert parameter.grad.abs().max() > 1e-9, name


def test_learns_one_batch(model_class, build):
    model = build(model_class)
    inputs = inputs_of(model)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    before = model(**inputs).loss.item()
    for _ in range(15):
        optimiser.zero_grad()
        model(**inputs).loss.backward()
        optimiser.step()
    assert model(**inputs).loss.item() < 0.7 * before


def test_config_is_frozen_and_tiny_is_of_its_class(model_class):
    config = model_class.config_class.tiny()
    assert isinstance(config, model_class.config_class)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.hidden_size = 1
