"""What the catalogue's files may say: models, papers and categories as pydantic models.

A shape here is what one file can be checked for on its own; what needs the other files (does that paper exist, does lineage run back
in time) is `checking`'s. The JSON Schema that editors use is made from these classes.
"""

from __future__ import annotations

import calendar
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, RootModel, model_validator

from ptmkb.catalogue.documents import number_or_text

_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_WIDE = r"\u2014\u2018\u2019\u201c\u201d\u2026\u3001-\u303f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff01-\uff60\U00020000-\U0003ffff"
_FOLD = re.compile(f"(?<=[{_WIDE}]) (?=[{_WIDE}])")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
"""What no export and no terminal takes as text; quoted YAML can write it as an escape."""


def _partial_date(text: str) -> str:
    match = re.fullmatch(r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2}))?)?", text)
    if not match:
        raise ValueError(f"`{text}` is not a date; write YYYY, YYYY-MM or YYYY-MM-DD")
    year, month, day = int(match[1]), int(match[2] or 1), int(match[3] or 1)
    if (
        not 1950 <= year <= 2100
        or not 1 <= month <= 12
        or not 1 <= day <= calendar.monthrange(year, month)[1]
    ):
        raise ValueError(f"`{text}` is not a day of the calendar; write YYYY, YYYY-MM or YYYY-MM-DD")
    return text


def _plain_text(value: Any) -> Any:
    return str(value) if isinstance(value, str) else value


def _legible(text: str) -> str:
    if text and not text.strip():
        raise ValueError("the text is blank; write it or remove the key")
    if strange := _CONTROL.search(text):
        raise ValueError(f"the text holds the control character U+{ord(strange[0]):04X}; remove it")
    return text


def _unfolded(text: str) -> str:
    """Chinese without the spaces that YAML's folding puts between its lines."""
    return _FOLD.sub("", text)


def _http(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s<>\"{}\\^`|]+", text):
        raise ValueError(f"`{text}` is not a web address; write https://…")
    return text


Str = Annotated[str, BeforeValidator(_plain_text), Field(min_length=1), AfterValidator(_legible)]
Slug = Annotated[Str, Field(pattern=r"^[a-z0-9]+(?:[-_.][a-z0-9]+)*$")]
PartialDate = Annotated[Str, AfterValidator(_partial_date)]
Url = Annotated[Str, AfterValidator(_http)]
Value = Annotated[Any, BeforeValidator(number_or_text)]
Modality = Literal[
    "text", "image", "audio", "video", "time-series", "layout", "protein", "point-cloud", "action"
]
Relation = Literal["architecture", "objective", "component", "weights", "distillation", "scale", "data"]


class Strict(BaseModel):
    """A mapping whose unknown keys are errors, so that a misspelt key cannot be overlooked."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Text(Strict):
    """A text for readers, in both languages."""

    en: Str
    zh: Annotated[Str, AfterValidator(_unfolded)]

    @model_validator(mode="after")
    def _zh_is_chinese(self) -> Text:
        if not _CHINESE.search(self.zh):
            raise ValueError("`zh` holds no Chinese; write the text in Chinese")
        return self


class Citation(Strict):
    """Where the literature says it.

    Attributes:
        paper: A paper's id.
        at: The place in it: a section, equation, table, figure or the abstract.
    """

    paper: Slug
    at: Str


class Paper(Strict):
    """A bibliographic record.

    Attributes:
        id: First author's family name, year of the first public version, first significant word of the title.
        kind: `paper` for the scholarly literature, `report` for a technical report, `web` for a page that stands in for one.
        authors: Full names; `et al.` may be the last.
        year: Of the first public version.
        arxiv: arXiv id without a version.
        acl: ACL Anthology id.
        provenance: The page or data that this record was checked against.
    """

    id: Slug
    kind: Literal["paper", "report", "web"] = "paper"
    title: Str
    authors: Annotated[list[Str], Field(min_length=1)]
    year: Annotated[int, Field(ge=1950, le=2100)]
    venue: Str | None = None
    arxiv: Annotated[Str, Field(pattern=r"^([0-9]{4}\.[0-9]{4,5}|[a-z-]+(\.[A-Z]{2})?/[0-9]{7})$")] | None = (
        None
    )
    doi: Annotated[Str, Field(pattern=r"^10\.[0-9]{4,9}/[^\s{}\\]+$")] | None = None
    acl: Annotated[Str, Field(pattern=r"^([A-Z][0-9]{2}-[0-9]{4}|[0-9]{4}\.[a-z0-9_-]+\.[0-9]+)$")] | None = (
        None
    )
    url: Url | None = None
    provenance: Str

    @model_validator(mode="after")
    def _can_be_found(self) -> Paper:
        if not (self.arxiv or self.doi or self.acl or self.url):
            raise ValueError(f"`{self.id}` leads nowhere; give `arxiv`, `doi`, `acl` or `url`")
        return self

    @property
    def link(self) -> str:
        """The address that a reader is sent to."""
        if self.arxiv:
            return f"https://arxiv.org/abs/{self.arxiv}"
        if self.acl:
            return f"https://aclanthology.org/{self.acl}"
        return f"https://doi.org/{self.doi}" if self.doi else str(self.url)


class Trait(Strict):
    """A strength or a limit of a category, with the paper that shows it."""

    text: Text
    source: Citation


class Category(Strict):
    """A kind of model.

    Attributes:
        parent: The wider category it belongs to.
        definition: What makes a model one of these.
        flow: The measured flow that members must show, by the part of the model (`model` for the only one); empty where members differ.
        strengths: What it is good at.
        limits: What it is not good at.
        drawing: Names of the drawings that explain it.
    """

    id: Slug
    name: Text
    parent: Slug | None = None
    definition: Text
    flow: dict[Str, Str] = {}
    strengths: list[Trait] = []
    limits: list[Trait] = []
    drawings: list[Slug] = []


class TransformersImplementation(Strict):
    """The model is one of `transformers`.

    Attributes:
        model_type: Its name in the configuration classes.
        architecture: The class to build; by default the one with the model's pre-training or main head.
    """

    kind: Literal["transformers"]
    model_type: Str
    architecture: Str | None = None


class ReferenceImplementation(Strict):
    """The model is one of `ptmkb.reference`.

    Attributes:
        module: The file's name.
        class_name: The class in it.
    """

    kind: Literal["reference"]
    module: Slug
    class_name: Str = Field(alias="class")


class NoImplementation(Strict):
    """Nobody has published it, or it cannot be built here."""

    kind: Literal["none"]
    why: Text


Implementation = Annotated[
    TransformersImplementation | ReferenceImplementation | NoImplementation, Field(discriminator="kind")
]


class Variant(Strict):
    """One published size of a model.

    Attributes:
        name: As its authors call it.
        hub: Its repository on the Hugging Face hub.
        config: What differs from the defaults of the configuration class.
        architecture: The class whose parameters the published figure counts; by default the implementation's base model
            (without a head).
    """

    name: Str
    hub: Annotated[Str, Field(pattern=r"^[\w.-]+(/[\w.-]+)?$")] | None = None
    config: dict[Str, Value] = {}
    architecture: Str | None = None


class Discrepancy(Strict):
    """A published figure and a measured one that do not agree.

    Attributes:
        measured: What the probe gives, in the form of the claim's value.
        note: What explains it, or that nothing known does.
    """

    measured: Value
    note: Text


class Claim(Strict):
    """What the literature says a measure gives.

    Attributes:
        measure: A file of `ptmkb/probe/measures/`.
        part: The part of the model that is spoken of, where it has several.
        variant: The published size that is spoken of; without it the claim holds for all.
        value: What the measure must give.
        source: Where the literature says so.
        discrepancy: Both figures, where the measured one is known to differ.
    """

    measure: Slug
    part: Annotated[Str, Field(pattern=r"^[a-z0-9-]+(>[a-z0-9-]+)?$")] | None = None
    variant: Str | None = None
    value: Value
    source: Citation
    discrepancy: Discrepancy | None = None


class Descent(Strict):
    """One edge of the lineage, written at the descendant.

    Attributes:
        ancestor: The model that something was taken from (`from` in the file).
        relation: What was taken.
        note: What exactly.
        source: Where the literature says so.
    """

    ancestor: Slug = Field(alias="from")
    relation: Relation
    note: Text
    source: Citation


class Model(Strict):
    """An entry of the catalogue; DESIGN of the format is in the contributing guide."""

    id: Slug
    name: Str
    status: Literal["curated", "indexed"]
    released: PartialDate
    organisation: Str
    category: Slug
    also: list[Slug] = []
    modalities: Annotated[list[Modality], Field(min_length=1)]
    summary: Text
    papers: list[Slug] = []
    implementation: Implementation
    variants: list[Variant] = []
    claims: list[Claim] = []
    lineage: list[Descent] = []

    @model_validator(mode="after")
    def _curated_is_sourced(self) -> Model:
        if self.status == "curated" and not self.papers:
            raise ValueError("a curated entry without `papers`; cite the paper or set `status: indexed`")
        if self.status == "curated" and not self.claims:
            raise ValueError("a curated entry without `claims`; add one or set `status: indexed`")
        return self


class Papers(RootModel[list[Paper]]):
    """A file `papers/YEAR.yaml`."""


class Categories(RootModel[list[Category]]):
    """The file `categories.yaml`, in the order in which categories are shown."""
