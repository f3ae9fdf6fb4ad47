"""A small catalogue in a temporary directory, to be broken in one place at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ptmkb.catalogue import ClaimReader, Problem, check, read_catalogue

CATEGORIES = """\
- id: encoder-ae
  name: {en: Encoder, zh: 编码器}
  definition: {en: It sees both sides., zh: 两侧都能看到。}
  flow: {model: bidirectional}
  strengths:
    - text: {en: Both sides., zh: 两侧。}
      source: {paper: devlin2018bert, at: "§3"}
- id: decoder-ar
  name: {en: Decoder, zh: 解码器}
  definition: {en: It sees the past., zh: 只看前文。}
"""
PAPERS = """\
- id: vaswani2017attention
  title: Attention Is All You Need
  authors: [Ashish Vaswani]
  year: 2018
  arxiv: "1706.03762"
  provenance: shared data
- id: devlin2018bert
  title: "BERT: Pre-training"
  authors: [Jacob Devlin, et al.]
  year: 2018
  arxiv: 1810.04805
  provenance: shared data
"""
TRANSFORMER = """\
id: transformer
name: Transformer
status: curated
released: 2017-06-12
organisation: Google
category: encoder-ae
modalities: [text]
summary: {en: A model., zh: 一个模型。}
papers: [vaswani2017attention]
implementation: {kind: none, why: {en: None., zh: 没有。}}
variants:
  - {name: base}
claims:
  - {measure: flow, value: bidirectional, source: {paper: vaswani2017attention, at: "§3"}}
"""
BERT = """\
id: bert
name: BERT
status: curated
released: 2018-10-11
organisation: Google
category: encoder-ae
modalities: [text]
summary:
  en: A model.
  zh: 一个模型。
papers: [devlin2018bert]
implementation: {kind: transformers, model_type: bert}
variants:
  - {name: base, hub: google-bert/bert-base-uncased, config: {hidden_size: 768}}
claims:
  - {measure: flow, value: bidirectional, source: {paper: devlin2018bert, at: "§3"}}
  - measure: parameters
    variant: base
    value: 110M
    source: {paper: devlin2018bert, at: "§3"}
lineage:
  - from: transformer
    relation: architecture
    note: {en: the encoder, zh: 编码器}
    source: {paper: devlin2018bert, at: "§3"}
"""


def _flow(value: object) -> object:
    if value not in ("bidirectional", "causal"):
        raise ValueError(f"a flow is bidirectional or causal; not {value!r}")
    return value


def _parameters(value: object) -> object:
    if not isinstance(value, str) or not value.endswith("M"):
        raise ValueError(f"{value!r} is not a number of parameters; write 110M")
    return value


MEASURES: dict[str, ClaimReader] = {"flow": _flow, "parameters": _parameters}


@dataclass(frozen=True)
class Small:
    """The small catalogue."""

    directory: Path

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.directory / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def change(self, name: str, old: str, new: str) -> None:
        path = self.directory / name
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {name}"
        path.write_text(text.replace(old, new))

    def problems(self) -> list[Problem]:
        catalogue, problems = read_catalogue(self.directory)
        return sorted({*problems, *check(catalogue, MEASURES)})

    def lines(self) -> list[str]:
        """The problems as they are shown, without the directory."""
        return [str(problem).removeprefix(f"{self.directory}/") for problem in self.problems()]


@pytest.fixture
def small(tmp_path: Path) -> Small:
    catalogue = Small(tmp_path / "catalogue")
    for folder in ("models", "papers"):
        (catalogue.directory / folder).mkdir(parents=True)
    catalogue.write("categories.yaml", CATEGORIES)
    catalogue.write("papers/2018.yaml", PAPERS)
    catalogue.write("models/transformer.yaml", TRANSFORMER)
    catalogue.write("models/bert.yaml", BERT)
    return catalogue


@pytest.fixture
def line_of(small: Small) -> Callable[[str, str], int]:
    """The line on which a piece of text first stands in a file."""

    def find(name: str, piece: str) -> int:
        text = (small.directory / name).read_text()
        return text[: text.index(piece)].count("\n") + 1

    return find
