"""What texts of the catalogue may hold, and how folded Chinese is joined."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ptmkb.catalogue import Categories, Model, Paper, Papers, Text, read_document


def _zh(text: str) -> str:
    return Text(en="x", zh=text).zh


@pytest.mark.parametrize(
    ("folded", "joined"),
    [
        ("左右 两侧", "左右两侧"),
        ("两侧， 都能看到。 它输出", "两侧，都能看到。它输出"),
        ("（见 《论文》 ） 。", "（见《论文》）。"),
        ("他说 “好” 了", "他说“好”了"),
        ("一 二 三 四", "一二三四"),
        ("一个 Transformer 编码器", "一个 Transformer 编码器"),
        ("共 12 层", "共 12 层"),
        ("编码器。 BERT 用它", "编码器。 BERT 用它"),
        ("- 一\n- 二\n\n三", "- 一\n- 二\n\n三"),
        ("缩进：\n    代码", "缩进：\n    代码"),
        ("两个  空格", "两个  空格"),
        ("𠀀 𠀁", "𠀀𠀁"),
    ],
)
def test_folding_leaves_no_space_between_chinese(folded, joined):
    if "𠀀" in folded:  # outside the plane in which a text is recognised as Chinese
        folded, joined = f"字{folded}", f"字{joined}"
    assert _zh(folded) == joined
    assert Text(en=folded, zh="字").en == folded


@given(st.lists(st.text("一二三，。（）", min_size=1, max_size=5), min_size=1, max_size=6))
def test_a_folded_yaml_block_reads_as_one_text(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("texts") / "x.yaml"
    path.write_text("en: x\nzh: >-\n  字\n" + "".join(f"  {line}\n" for line in lines))
    assert _zh(read_document(path).data["zh"]) == "字" + "".join(lines)


def test_no_entry_of_the_own_catalogue_has_such_a_space():
    from ptmkb.catalogue import load_catalogue

    catalogue = load_catalogue()
    texts = [model.summary.zh for model in catalogue.models.values()]
    texts += [category.definition.zh for category in catalogue.categories.values()]
    assert len(texts) > 40
    assert not [text for text in texts if _zh(text) != text]


@pytest.mark.parametrize(
    "text", ["", " ", "\n\t", "a\x1bb", "a\x00", "a\u2028b", "a\ufffe", "a\ud800", "a\x85"]
)
def test_blank_and_control_characters_are_refused(text):
    with pytest.raises(ValidationError):
        Text(en=text, zh="字")
    assert Text(en="a\tb\nc é 😀", zh="字").en == "a\tb\nc é 😀"


def _paper(**changed: object) -> Paper:
    given = {
        "id": "x",
        "title": "T",
        "authors": ["A"],
        "year": 2018,
        "arxiv": "1810.04805",
        "provenance": "p",
    }
    return Paper.model_validate(given | changed)


@pytest.mark.parametrize(
    "changed",
    [
        {"arxiv": "1810.04805v2"},
        {"arxiv": "１810.04805"},
        {"doi": "10.1/x"},
        {"doi": "10.1000/a b"},
        {"doi": "10.1000/a{b"},
        {"acl": "N19"},
        {"url": "ftp://x"},
        {"url": "https://x/{y}"},
        {"url": "https://x y"},
        {"year": 1900},
        {"year": "soon"},
        {"authors": []},
        {"authors": [""]},
        {"id": "A"},
        {"id": "a/b"},
        {"id": "a..b"},
        {"id": "-a"},
        {"id": "a\n"},
    ],
)
def test_bad_fields_of_papers_are_refused(changed):
    with pytest.raises(ValidationError):
        _paper(**changed)


def test_links_prefer_arxiv_then_acl_then_doi():
    assert _paper(acl="N19-1423", doi="10.1000/x", url="https://x").link == "https://arxiv.org/abs/1810.04805"
    assert _paper(arxiv=None, acl="N19-1423", doi="10.1000/x").link == "https://aclanthology.org/N19-1423"
    assert _paper(arxiv=None, doi="10.1000/x", url="https://x").link == "https://doi.org/10.1000/x"
    assert _paper(arxiv=None, url="https://x").link == "https://x"


@pytest.mark.parametrize("kind", [Model, Papers, Categories])
def test_json_schema_refuses_unknown_keys(kind):
    schema = kind.model_json_schema(by_alias=True)
    entry = schema if kind is Model else schema["$defs"][kind.__name__.replace("ies", "y").removesuffix("s")]
    assert entry["additionalProperties"] is False
    assert "id" in entry["required"]


def test_json_schema_has_the_files_names_of_keys():
    schema = Model.model_json_schema(by_alias=True)
    assert set(schema["$defs"]["Descent"]["required"]) == {"from", "relation", "note", "source"}
    assert "class" in schema["$defs"]["ReferenceImplementation"]["properties"]
