"""Notes at lines of source: the anchors that keep them there, and the notes themselves.

    anchor = make_anchor(old_text, 12, 18)
    resolve(anchor, new_text)          # Resolution(status='moved', first_line=40, last_line=46, …)

Anchors work on any Python source. `load_notes` and `resolve_notes` apply them to the notes on `transformers`.
"""

from ptmkb.annotations.anchors import Anchor, Twin, make_anchor
from ptmkb.annotations.resolution import Resolution, Status, resolve

__all__ = [
    "Anchor",
    "Resolution",
    "Status",
    "Twin",
    "make_anchor",
    "resolve",
]
