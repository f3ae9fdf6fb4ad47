"""Every kind of problem that `ptmkb check` finds in the catalogue: one edit, one exact line."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ptmkb.catalogue import CatalogueError, check, load_catalogue, read_catalogue
from ptmkb.cli.state import claim_readers

BERT = "models/bert.yaml"
PAPERS = "papers/2018.yaml"
CATEGORIES = "categories.yaml"
FROM_BERT = """\
lineage:
  - from: bert
    relation: weights
    note: {en: all, zh: 全部}
    source: {paper: devlin2018bert, at: "§3"}
"""


def test_the_small_catalogue_is_sound(small):
    assert small.lines() == []


def test_own_catalogue_is_sound():
    catalogue, problems = read_catalogue()
    assert [str(p) for p in problems + check(catalogue, claim_readers())] == []
    assert len(catalogue.models) >= 35


ONE_EDIT = [
    (BERT, "organisation:", "organization:", [
        (4 + 1, "unknown key `organization`; did you mean `organisation`?"),
        (1, "`organisation` is missing; add it"),
    ]),
    (BERT, "    variant: base", "    varient: base", [(18, "unknown key `varient`; did you mean `variant`?")]),
    (BERT, "name: BERT", "name: BERT\nqqq: 1", [(3, "unknown key `qqq`; remove it")]),
    (BERT, "papers: [devlin2018bert]", "papers: [devlin2018bret]", [
        (11, "no paper `devlin2018bret`; did you mean `devlin2018bert`?"),
    ]),
    (BERT, "[devlin2018bert]", "[devlin2018bert, devlin2018bert]", [
        (11, "the paper `devlin2018bert` stands twice; keep one of the two"),
    ]),
    (BERT, 'flow, value: bidirectional, source: {paper: devlin2018bert', 'flow, value: causal, source: {paper: zz', [
        (16, "no paper `zz`; add that paper or name another"),
    ]),
    (BERT, "category: encoder-ae", "category: encoder-ea", [
        (6, "no category `encoder-ea`; did you mean `encoder-ae`?"),
    ]),
    (BERT, "modalities:", "also: [decoder]\nmodalities:", [(7, "no category `decoder`; did you mean `decoder-ar`?")]),
    (BERT, "    variant: base", "    variant: large", [(18, "no variant `large`; add that variant or name another")]),
    (BERT, "variants:", "variants:\n  - {name: base}", [(15, "the variant `base` stands twice; keep one of the two")]),
    (BERT, "measure: flow", "measure: flwo", [(16, "no measure `flwo`; did you mean `flow`?")]),
    (BERT, "measure: parameters\n    variant: base\n    value: 110M", "measure: flow\n    value: bidirectional", [
        (17, "a second claim for `flow`; keep one of the two"),
    ]),
    (BERT, "value: bidirectional", "value: sideways", [
        (16, "a flow is bidirectional or causal, not 'sideways'; write a value that `flow` can give"),
    ]),
    (BERT, "value: 110M", "value: 110", [(19, "110 is not a number of parameters; write 110M")]),
    (BERT, "value: 110M", "value: 110M\n    discrepancy: {measured: 1, note: {en: So., zh: 因此。}}", [
        (20, "1 is not a number of parameters; write 110M"),
    ]),
    (BERT, "from: transformer", "from: transfomer", [(22, "no model `transfomer`; did you mean `transformer`?")]),
    (BERT, "from: transformer", "from: bert", [
        (22, "the lineage runs in a circle: bert → bert; remove one of its edges"),
    ]),
    (BERT, "released: 2018-10-11", "released: 2017-06-11", [
        (22, "`transformer` (2017-06-12) is younger than `bert` (2017-06-11); turn the edge round or mend a date"),
    ]),
    (BERT, "released: 2018-10-11", "released: 2016", [
        (22, "`transformer` (2017-06-12) is younger than `bert` (2016); turn the edge round or mend a date"),
    ]),
    (BERT, "released: 2018-10-11", "released: 2017", []),
    (BERT, "2018-10-11", "2019-02-30", [(4, "`2019-02-30` is not a day of the calendar; write YYYY, YYYY-MM or YYYY-MM-DD")]),
    (BERT, "2018-10-11", "2020-02-29", []),
    (BERT, "2018-10-11", "2018-13", [(4, "`2018-13` is not a day of the calendar; write YYYY, YYYY-MM or YYYY-MM-DD")]),
    (BERT, "2018-10-11", "2018-1-1", [(4, "`2018-1-1` is not a date; write YYYY, YYYY-MM or YYYY-MM-DD")]),
    (BERT, "2018-10-11", "２０１８", [(4, "`２０１８` is not a date; write YYYY, YYYY-MM or YYYY-MM-DD")]),
    (BERT, "2018-10-11", "Oct; 2018", [(4, "`Oct; 2018` is not a date; write YYYY, YYYY-MM or YYYY-MM-DD")]),
    (BERT, "  zh: 一个模型。\n", "", [(8, "`en` without its `zh`; add the text in `zh`")]),
    (BERT, "  en: A model.\n", "", [(8, "`zh` without its `en`; add the text in `en`")]),
    (BERT, "zh: 一个模型。", "zh: A model.", [(8, "`zh` holds no Chinese; write the text in Chinese")]),
    (BERT, "zh: 一个模型。", 'zh: " "', [(10, "the text is blank; write it or remove the key")]),
    (BERT, "zh: 一个模型。", 'zh: ""', [(10, "`zh` is empty; write it or remove the key")]),
    (BERT, "zh: 一个模型。", r'zh: "模型\e[31m"', [(10, "the text holds the control character U+001B; remove it")]),
    (BERT, "id: bert\n", "id: bart\n", [(1, "`bart` stands in `bert.yaml`; name the file after the id")]),
    (BERT, "relation: architecture", "relation: parent", [
        (23, "`relation: parent` is not known; use 'architecture', 'objective', 'component', 'weights', 'distillation', "
         "'scale' or 'data'"),
    ]),
    (BERT, "modalities: [text]", "modalities: text", [(7, "`modalities` is not a list; write its items as `- …` or in brackets")]),
    (BERT, "papers: [devlin2018bert]", "papers: []", [
        (1, "a curated entry without `papers`; cite the paper or set `status: indexed`"),
    ]),
    (CATEGORIES, "flow: {model: bidirectional}", "flow: {model: back}", [
        (4, "a flow is bidirectional or causal, not 'back'; write a flow that the measure can give"),
    ]),
    (CATEGORIES, "{paper: devlin2018bert", "{paper: devlin", [(7, "no paper `devlin`; add that paper or name another")]),
    (CATEGORIES, "- id: decoder-ar", "- id: encoder-ae", [
        (8, "the category's `id: encoder-ae` stands in categories.yaml:1 already (`encoder-ae`); keep one of the two"),
    ]),
    (CATEGORIES, "- id: decoder-ar", "- id: decoder-ar\n  parent: encoder", [
        (9, "no category `encoder`; did you mean `encoder-ae`?"),
    ]),
    (PAPERS, "1810.04805", "1706.03762", [
        (11, "the paper's `arxiv: 1706.03762` stands in 2018.yaml:5 already (`vaswani2017attention`); keep one of the two"),
    ]),
    (PAPERS, '"BERT: Pre-training"', "attention is all you  need!", [
        (8, "the paper's `title: attention is all you need` stands in 2018.yaml:2 already (`vaswani2017attention`); "
         "keep one of the two"),
    ]),
    (PAPERS, "Devlin, et al.]\n  year: 2018", "Devlin, et al.]\n  year: 2019", [
        (10, "`devlin2018bert` is of 2019 but stands in `2018.yaml`; move it to `2019.yaml` or mend the year"),
    ]),
    (PAPERS, "  arxiv: 1810.04805\n", "", [(7, "`devlin2018bert` leads nowhere; give `arxiv`, `doi`, `acl` or `url`")]),
    (PAPERS, "  arxiv: 1810.04805\n", "  url: javascript:x\n", [(11, "`javascript:x` is not a web address; write https://…")]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "expected"), ONE_EDIT)
def test_one_edit_gives_its_exact_lines(small, name, old, new, expected):
    small.change(name, old, new)
    assert sorted(small.lines()) == sorted(f"{name}:{line}: {said}" for line, said in expected)


def test_categories_stand_two_levels_deep_at_most(small):
    text = (small.directory / CATEGORIES).read_text()
    third = (
        "- id: tiny\n  parent: decoder-ar\n  name: {en: Tiny, zh: 小}\n  definition: {en: Small., zh: 小。}\n"
    )
    small.write(
        CATEGORIES, text.replace("- id: decoder-ar", "- id: decoder-ar\n  parent: encoder-ae") + third
    )
    assert small.lines() == [
        "categories.yaml:13: `tiny` would stand three levels deep; name a parent that has none itself"
    ]


def test_duplicate_ids_across_files(small):
    small.write("models/bert2.yaml", (small.directory / BERT).read_text())
    assert small.lines() == [
        "models/bert2.yaml:1: `bert` stands in `bert2.yaml`; name the file after the id",
        "models/bert2.yaml:1: the model's `id: bert` stands in bert.yaml:1 already (`bert`); keep one of the two",
    ]


def test_a_doi_is_the_same_in_any_case(small):
    text = (small.directory / PAPERS).read_text()
    small.write(
        PAPERS,
        text.replace('arxiv: "1706.03762"', "doi: 10.1000/AbC").replace(
            "arxiv: 1810.04805", "doi: 10.1000/aBc"
        ),
    )
    assert len(small.lines()) == 1
    assert small.lines()[0].startswith(
        f"{PAPERS}:11: the paper's `doi: 10.1000/aBc` stands in 2018.yaml:5 already"
    )


def test_circle_is_said_at_each_of_its_edges(small):
    small.change("models/transformer.yaml", "claims:", FROM_BERT + "claims:")
    small.change("models/transformer.yaml", "2017-06-12", "2018-10")
    what = "the lineage runs in a circle: "
    circles = [line for line in small.lines() if what in line]
    assert [line.split(what)[0] for line in circles] == [
        "models/bert.yaml:22: ",
        "models/transformer.yaml:14: ",
    ]
    assert len(circles) == len(small.lines())


def test_two_circles_are_both_shown(small):
    small.change(BERT, "from: transformer", "from: bert")
    small.change(
        "models/transformer.yaml", "claims:", FROM_BERT.replace("from: bert", "from: transformer") + "claims:"
    )
    assert [line.split(";")[0] for line in small.lines()] == [
        "models/bert.yaml:22: the lineage runs in a circle: bert → bert",
        "models/transformer.yaml:14: the lineage runs in a circle: transformer → transformer",
    ]


def test_the_same_edge_twice(small):
    small.change(
        BERT,
        "lineage:\n",
        FROM_BERT.replace("from: bert", "from: transformer").replace("weights", "architecture"),
    )
    assert small.lines() == [
        "models/bert.yaml:26: a second edge `architecture` from `transformer`; keep one of the two"
    ]


def test_all_problems_of_one_entry_are_shown_at_once(small):
    """What breaks the schema must not hide what dangles, at the right lines although broken list items are left out."""
    text = (small.directory / BERT).read_text()
    for old, new in [
        ("organisation: Google", "organisation: Google\nteam: x"),
        ("2018-10-11", "2019-02-30"),
        ("encoder-ae", "encoder-x"),
        ("  zh: 一个模型。\n", ""),
        ("papers: [devlin2018bert]", "papers: [Nobody, nobody2019x]"),
        (
            "measure: flow, value: bidirectional, source: {paper: devlin2018bert, at",
            "measure: flow, valeu: x, source: {paper: d, at",
        ),
        ("value: 110M", "value: many"),
        ("from: transformer", "from: nothing"),
    ]:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    small.write(BERT, text)
    found = [line.removeprefix("models/bert.yaml:").split(";")[0] for line in small.lines()]
    assert found == [
        "4: `2019-02-30` is not a day of the calendar",
        "6: unknown key `team`",
        "7: no category `encoder-x`",
        "9: `en` without its `zh`",
        "11: `papers`: string should match pattern '^[a-z0-9]+(?:[-_.][a-z0-9]+)*$'",
        "11: no paper `nobody2019x`",
        "16: `value` is missing",
        "16: unknown key `valeu`",
        "19: 'many' is not a number of parameters",
        "22: no model `nothing`",
    ]


def test_problems_of_all_files_are_shown(small):
    small.change(BERT, "2018-10-11", "x")
    small.change(PAPERS, "Attention Is", "")
    small.change(PAPERS, "year: 2018\n  arxiv: 1810.04805", "year: never\n  arxiv: 1810.04805")
    small.change(CATEGORIES, "name: {en: Encoder,", "name: {")
    small.write("models/broken.yaml", "id: [")
    files = {line.split(":")[0] for line in small.lines()}
    assert files == {BERT, PAPERS, CATEGORIES, "models/broken.yaml"}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (PAPERS, "year: 2018\n  arxiv: 1810.04805", "year: never\n  arxiv: 1810.04805"),
        (PAPERS, "provenance: shared data\n- id: devlin2018bert", "provenance: [\n- id: devlin2018bert"),
        (CATEGORIES, "name: {en: Encoder, zh: 编码器}", "name: {en: Encoder}"),
        (CATEGORIES, "name: {en: Encoder, zh: 编码器}", "name: {en: Encoder"),
        ("models/transformer.yaml", "name: Transformer", "nmae: Transformer"),
        ("models/transformer.yaml", "id: transformer", "id: Transformer"),
        ("models/transformer.yaml", "id: transformer", "id: ["),
        ("models/transformer.yaml", "id: transformer\n", ""),
        ("models/transformer.yaml", "name: Transformer", "\tname: Transformer"),
    ],
)
def test_a_broken_entry_makes_nothing_dangle(small, name, old, new):
    small.change(name, old, new)
    assert small.lines()
    assert [line for line in small.lines() if not line.startswith(f"{name}:")] == []


def test_a_yml_file_is_not_overlooked(small):
    (small.directory / BERT).rename(small.directory / "models/bert.yml")
    assert small.lines() == ["models/bert.yml:1: a file named `.yml` is not read; rename it to bert.yaml"]


def test_missing_pieces_of_the_catalogue(small):
    (small.directory / CATEGORIES).unlink()
    assert "categories.yaml:1: no such file; write it or name another" in small.lines()
    shutil.rmtree(small.directory)
    assert [problem.what for problem in small.problems()] == ["no such directory"]


def test_a_paper_file_with_a_strange_number(small):
    (small.directory / PAPERS).rename(small.directory / "papers/²⁰¹⁸.yaml")
    assert small.lines() == []


def test_broken_catalogue_cannot_be_loaded(small):
    small.change(BERT, "name: BERT", "nmae: BERT")
    with pytest.raises(CatalogueError) as error:
        load_catalogue(small.directory)
    assert [problem.line for problem in error.value.problems] == [1, 2]


def test_members_are_those_below_too_oldest_first(small):
    small.change(CATEGORIES, "- id: decoder-ar", "- id: decoder-ar\n  parent: encoder-ae")
    small.change(BERT, "category: encoder-ae", "category: decoder-ar")
    catalogue = load_catalogue(small.directory)
    assert [model.id for model in catalogue.members("encoder-ae")] == ["transformer", "bert"]
    assert [model.id for model in catalogue.members("decoder-ar")] == ["bert"]


def test_paths_below_the_working_directory_are_relative(small, monkeypatch: pytest.MonkeyPatch):
    small.change(BERT, "name: BERT", "nmae: BERT")
    monkeypatch.chdir(small.directory.parent)
    assert str(small.problems()[0]).startswith(str(Path("catalogue") / BERT))


ODD_VALUES = [
    *(
        None,
        True,
        0,
        -1,
        1.5,
        "",
        "x",
        [],
        [1, [2]],
        {},
        {"a": None},
        {"kind": []},
        {"": {}},
        {"kind": {"a": 1}},
    ),
    *({"layers": "x"}, [None], ["causal"], 10**40, float("1e300"), "x" * 10_000, {"x": {"y": []}}),
]


@pytest.mark.parametrize("name", sorted(claim_readers()))
def test_odd_values_of_claims_are_problems_not_tracebacks(small, name):
    """Every measure refuses most of these, and each refusal is one line at the value."""
    catalogue = load_catalogue(small.directory)
    bert = catalogue.models["bert"]
    refused = 0
    for value in ODD_VALUES:
        claim = bert.claims[1].model_copy(update={"measure": name, "value": value, "variant": None})
        model = bert.model_copy(update={"claims": [claim, claim]})
        entries = tuple(
            replace(entry, value=model) if entry.value is bert else entry for entry in catalogue.entries
        )
        found = check(replace(catalogue, entries=entries), claim_readers())
        assert {problem.line for problem in found if "second claim" not in problem.what} <= {16, 19}
        assert all("\n" not in str(problem) and len(str(problem)) < 1000 for problem in found)
        refused += len(found) > 1
    assert refused > len(ODD_VALUES) / 2
