"""Notes at lines of source: the anchors that keep them there, and the notes themselves.

    anchor = make_anchor(old_text, 12, 18)
    resolve(anchor, new_text)          # Resolution(status='moved', first_line=40, last_line=46, …)

Anchors work on any Python source. `load_notes` and `resolve_notes` apply them to the notes on `transformers`.
"""

from ptmkb.annotations.anchors import Anchor, Twin
from ptmkb.annotations.checks import CheckResult, run_checks
from ptmkb.annotations.coverage import Coverage, count_coverage, part_of
from ptmkb.annotations.drafting import draft_note
from ptmkb.annotations.loading import NoteSet, load_notes, notes_directory
from ptmkb.annotations.making import make_anchor
from ptmkb.annotations.notes import Note, NoteFile, PlacedNote, ResolvedNote, resolve_notes
from ptmkb.annotations.resolution import Resolution, Status, resolve

__all__ = [
    "Anchor",
    "CheckResult",
    "Coverage",
    "Note",
    "NoteFile",
    "NoteSet",
    "PlacedNote",
    "Resolution",
    "ResolvedNote",
    "Status",
    "Twin",
    "count_coverage",
    "draft_note",
    "load_notes",
    "make_anchor",
    "notes_directory",
    "part_of",
    "resolve",
    "resolve_notes",
    "run_checks",
]
