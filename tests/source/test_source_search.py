"""The index of the installed release: it says what the parser says, and finds what people look for, at once."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from ptmkb.source import SourceIndex, find_tree, parse_module, update_index
from ptmkb.source.words import coverage, name_words, query

TREE = find_tree()

SAMPLED = 200
"""Files compared with the parser; all 2,860 of them take ten seconds more."""

ANSWER_SECONDS = 0.1
"""Processor time within which any question is answered."""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SourceIndex]:
    before = os.environ.get("PTMKB_CACHE")
    os.environ["PTMKB_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    try:
        update_index(TREE)
        with SourceIndex(TREE) as opened:
            yield opened
    finally:
        if before is None:
            del os.environ["PTMKB_CACHE"]
        else:
            os.environ["PTMKB_CACHE"] = before


def test_it_has_the_whole_release(index: SourceIndex) -> None:
    counts = index.counts()
    assert counts["files"] == counts["module"] == len(TREE.files())
    assert counts["lines"] > 1_000_000
    assert index.errors() == []
    assert index.is_current()


def test_its_symbols_are_those_of_the_parser(index: SourceIndex) -> None:
    files = TREE.files()
    compared = 0
    for file in files[:: max(1, len(files) // SAMPLED)]:
        expected = parse_module(TREE.read(file), file).symbols
        assert [(s.name, s.kind, s.first_line, s.last_line, s.bases, s.doc) for s in index.symbols(file)] == [
            (s.name, s.kind, s.first_line, s.last_line, s.bases, s.doc) for s in expected
        ]
        compared += len(expected)
    assert compared > 2000


@pytest.mark.parametrize(
    ("question", "first", "also"),
    [
        ("rotary embedding", "LlamaRotaryEmbedding", {"apply_rotary_pos_emb"}),
        ("LlamaAttention.forward", "LlamaAttention.forward", set()),
        ("llama attention", "LlamaAttention", set()),
        ("BertSelfAttention", "BertSelfAttention", {"ConvBertSelfAttention"}),
        ("bert self attn", "BertSelfAttention", set()),
        ("rms norm", "LlamaRMSNorm", set()),
        ("deberta attention", "DebertaAttention", {"DebertaV2Attention"}),
        ("DeBERTa attention", "DebertaAttention", {"DebertaV2Attention"}),
        ("gpt2 lm head", "GPT2LMHeadModel", {"GPT2LMHeadModel.forward"}),
        ("beam search", "GenerationMixin._beam_search", set()),
        ("create causal mask", "create_causal_mask", {"create_sliding_window_causal_mask"}),
        ("repetition penalty", "RepetitionPenaltyLogitsProcessor", set()),
        ("sliding window cache layer", "DynamicSlidingWindowLayer", {"StaticSlidingWindowLayer"}),
        ("wav2vec2 feature extractor", "Wav2Vec2FeatureExtractor", set()),
        ("clip contrastive loss", "contrastive_loss", {"image_text_contrastive_loss"}),
        ("T5 relative position bucket", "T5Attention._relative_position_bucket", set()),
        ("the embeddings of bert", "BertEmbeddings", set()),
        ("config of mistral", "MistralConfig", set()),
        ("eager attention", "eager_attention_forward", set()),
    ],
)
def test_what_people_ask_for_comes_first(
    index: SourceIndex, question: str, first: str, also: set[str]
) -> None:
    names = [hit.symbol.name for hit in index.search(question)]
    assert names[0] == first
    assert also <= set(names[:8])
    assert len(names) == len(set(names)) <= 20


def test_a_name_that_models_carry_is_one_hit_with_its_origin(index: SourceIndex) -> None:
    [hit] = [hit for hit in index.search("apply rotary") if hit.symbol.name == "apply_rotary_pos_emb"]
    definitions = TREE.find_symbol("apply_rotary_pos_emb")
    assert hit.definitions == len(definitions) > 50
    assert hit.symbol.file == "models/llama/modeling_llama.py"
    assert hit.symbol.signature.startswith("(q, k, cos, sin")
    assert hit.symbol.doc


def test_kind_limit_and_nothing(index: SourceIndex) -> None:
    assert {hit.symbol.kind for hit in index.search("attention", kind="function")} == {"function"}
    [module] = index.search("masking utils", kind="module", limit=1)
    assert module.symbol.name == "masking_utils"
    for nothing in ("", "  ", "xyzzyplugh", '"', "* (", "xyzzyplugh*", "\0"):
        assert index.search(nothing) == []
    for operators in ('rotary" OR embedding*', "NEAR(rotary", "name: rotary", "-rotary AND NOT"):
        assert index.search(operators)
    assert [
        hit.symbol.name for hit in index.search("rotary xyzzyplugh", limit=1)
    ]  # better some words than none


@pytest.mark.parametrize("question", ["model", "forward", "attention", "init", "rotary embedding", "e m b"])
def test_it_answers_at_once(index: SourceIndex, question: str) -> None:
    started = time.process_time()
    index.search(question)
    assert time.process_time() - started < ANSWER_SECONDS
    started = time.process_time()
    assert index.named("LlamaAttention.forward")
    assert time.process_time() - started < ANSWER_SECONDS / 10


def test_who_took_it_from_whom(index: SourceIndex) -> None:
    llama = "models/llama/modeling_llama.py"
    [attention] = index.named("LlamaAttention")
    takers = index.links_to(llama, "LlamaAttention")
    assert attention.taken == len({(link.file, link.symbol) for link in takers}) > 20
    assert ("models/mistral/modular_mistral.py", "MistralAttention") in {
        (link.file, link.symbol) for link in takers
    }
    generated = index.links_from("models/mistral/modeling_mistral.py", "MistralAttention")
    assert [(link.kind, link.target_file) for link in generated] == [
        ("generated", "models/mistral/modular_mistral.py")
    ]
    for link in [link for link in takers if link.kind == "copied"]:
        assert "LlamaAttention" in TREE.lines(link.file)[link.line - 1]
    electra = index.links_from("models/electra/modeling_electra.py", "ElectraSelfAttention")
    assert [(link.kind, link.target_symbol) for link in electra] == [("copied", "BertSelfAttention")]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("LlamaRotaryEmbedding", {"llama", "rotary", "embedding"}),
        ("apply_rotary_pos_emb", {"rotary", "position", "embedding"}),
        ("GPT2LMHeadModel", {"gpt", "2", "gpt2", "lm", "head", "model"}),
        ("DeepseekV3MoE", {"moe", "mixture", "experts"}),
        ("models/xlstm/modeling_xlstm.py", {"xlstm"}),
        ("SwiGLU", {"swiglu"}),
        ("", set()),
    ],
)
def test_names_are_split_into_words(name: str, words: set[str]) -> None:
    assert words <= set(name_words(name).split())


def test_questions_without_a_word_ask_for_nothing() -> None:
    assert query(' "*() ') is None
    assert query("of the") is not None


@pytest.mark.parametrize(
    ("name", "question", "share"),
    [
        ("BertEmbeddings", "the bert embedding", 1),
        ("LlamaRotaryEmbedding.forward", "rotary emb", 0.5),
        ("BertEmbeddings", "llama", 0),
        ("_", "llama", 0),
    ],
)
def test_how_much_of_a_name_was_asked_for(name: str, question: str, share: float) -> None:
    assert coverage(name, question) == share
