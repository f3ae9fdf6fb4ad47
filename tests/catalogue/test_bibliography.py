"""BibTeX, CSL-JSON and CSV say what the papers say, whatever characters stand in them."""

import csv
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptmkb.catalogue import Paper, load_catalogue, to_bibtex, to_csl, to_csv

UNESCAPED = {
    r"\textbraceleft{}": "{",
    r"\textbraceright{}": "}",
    r"\textbackslash{}": "\\",
    r"\textasciitilde{}": "~",
    r"\textasciicircum{}": "^",
    r"\textquotedbl{}": '"',
} | {f"\\{character}": character for character in "&%$#_"}


def parse_bibtex(text: str) -> list[tuple[str, str, dict[str, str]]]:
    """Entries as BibTeX reads them: braces are counted without regard to backslashes."""
    entries, at = [], 0
    while match := re.compile(r"\s*@(\w+)\{([^\s,{}]+),\s*").match(text, at):
        at, fields = match.end(), {}
        while match_field := re.compile(r"(\w+) = \{").match(text, at):
            start = at = match_field.end()
            depth = 1
            while depth:
                depth += {"{": 1, "}": -1}.get(text[at], 0)
                at += 1
            assert match_field[1] not in fields
            fields[match_field[1]] = text[start : at - 1]
            separator = re.compile(r",\s*").match(text, at)
            assert separator
            at = separator.end()
        assert text[at] == "}"
        at += 1
        entries.append((match[1], match[2], fields))
    assert not text[at:].strip()
    return entries


def plain(tex: str) -> str:
    """The characters that TeX sets."""
    pattern = "|".join(map(re.escape, UNESCAPED)) + r"|[{}]"
    return re.sub(pattern, lambda match: UNESCAPED.get(match[0], ""), tex)


TEXTS = st.text(
    st.characters(blacklist_categories=("Cc", "Cs", "Cn", "Zl", "Zp", "Zs")), min_size=1, max_size=20
)
WORDS = st.lists(TEXTS, min_size=1, max_size=4).map(" ".join)
PAPERS = st.lists(
    st.builds(
        Paper,
        id=st.from_regex(r"[a-z0-9]{1,8}(-[a-z0-9]{1,4})?", fullmatch=True),
        kind=st.sampled_from(["paper", "report", "web"]),
        title=WORDS | st.sampled_from(["A {B} and \\C", "100 % of $x_1$", 'ünd "É" ~^', "}{"]),
        authors=st.lists(
            WORDS | st.sampled_from(["et al.", "Team, Inc.", "Alice and Bob"]), min_size=1, max_size=3
        ),
        year=st.integers(1950, 2100),
        venue=st.none() | WORDS,
        arxiv=st.none() | st.just("1810.04805"),
        doi=st.none() | st.just("10.1000/a_b-c"),
        url=st.just("https://example.org/a_b?c=%20#d"),
        provenance=st.just("test"),
    ),
    max_size=4,
)


@given(PAPERS)
def test_bibtex_says_what_the_papers_say(papers):
    entries = parse_bibtex(to_bibtex(papers))
    assert [key for _, key, _ in entries] == [paper.id for paper in papers]
    for (kind, _, fields), paper in zip(entries, papers, strict=True):
        assert (
            plain(fields["title"]) == " ".join(paper.title.split()) or plain(fields["title"]) == paper.title
        )
        assert fields["year"] == str(paper.year)
        assert fields["url"] == paper.link
        assert fields.get("eprint") == paper.arxiv
        assert fields.get("doi") == paper.doi
        venue = {"inproceedings": "booktitle", "techreport": "institution", "misc": "howpublished"}[kind]
        assert plain(fields.get(venue, "")) == (paper.venue or "")
        assert plain(fields["author"]) == " and ".join(
            "others" if name == "et al." else name for name in paper.authors
        )
        for word in fields["title"].split(" "):
            assert word == word.lower() or word.startswith("{")  # else a style lowers its capitals


@given(PAPERS)
def test_names_stay_as_many_as_they_are(papers):
    for (_, _, fields), paper in zip(parse_bibtex(to_bibtex(papers)), papers, strict=True):
        bare = fields["author"]
        while bare != (inner := re.sub(r"\{[^{}]*\}", "x", bare)):
            bare = inner
        assert len(re.split(r"\sand\s", bare)) == len(paper.authors)
        assert "," not in bare


@given(PAPERS)
def test_csv_round_trip(papers):
    rows = list(csv.DictReader(io.StringIO(to_csv(papers), newline="")))
    assert [row["title"] for row in rows] == [paper.title for paper in papers]
    assert [row["authors"] for row in rows] == ["; ".join(paper.authors) for paper in papers]
    for row, paper in zip(rows, papers, strict=True):
        assert (row["id"], row["year"], row["url"]) == (paper.id, str(paper.year), paper.link)
        assert row["venue"] == (paper.venue or "")
        assert row["arxiv"] == (paper.arxiv or "")


@given(PAPERS)
def test_csl_round_trip(papers):
    items = json.loads(to_csl(papers))
    for item, paper in zip(items, papers, strict=True):
        assert (item["id"], item["title"], item["URL"]) == (paper.id, paper.title, paper.link)
        assert item["issued"] == {"date-parts": [[paper.year]]}
        assert item.get("container-title") == paper.venue
        names = [
            " ".join(filter(None, map(name.get, ("given", "family", "literal"))))
            for name in item.get("author", [])
        ]
        assert names == [name for name in paper.authors if name != "et al."]
        assert item["type"] in ("paper-conference", "article", "report", "webpage")


def test_capitals_of_a_title_are_kept():
    paper = Paper(
        id="x",
        title="BERT: Pre-training of deep {x}",
        authors=["A B"],
        year=2018,
        url="https://x",
        provenance="p",
    )
    assert r"  title = {{BERT:} {Pre-training} of deep \textbraceleft{}x\textbraceright{}}," in to_bibtex(
        [paper]
    )


def test_whole_own_bibliography_is_written():
    papers = list(load_catalogue().papers.values())
    assert len(papers) > 30
    assert len(parse_bibtex(to_bibtex(papers))) == len(json.loads(to_csl(papers))) == len(papers)
    assert len(list(csv.reader(io.StringIO(to_csv(papers))))) == len(papers) + 1


@pytest.mark.parametrize(
    ("kind", "venue", "expected"),
    [
        ("paper", "NAACL", "@inproceedings"),
        ("paper", None, "@misc"),
        ("report", "OpenAI", "@techreport"),
        ("web", None, "@misc"),
    ],
)
def test_kinds_of_entries(kind, venue, expected):
    paper = Paper(
        id="x", kind=kind, title="t", authors=["A B"], year=2018, venue=venue, url="https://x", provenance="p"
    )
    assert to_bibtex([paper]).startswith(expected)
