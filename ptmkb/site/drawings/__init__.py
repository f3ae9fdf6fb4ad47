"""Drawings of our own as inline SVG. Colours are CSS classes of the site's style sheet, so light and dark are one drawing."""

from ptmkb.site.drawings.blocks import block_diagram
from ptmkb.site.drawings.elements import Sizes
from ptmkb.site.drawings.gallery import drawing, drawing_names
from ptmkb.site.drawings.matrix import flow_matrix
from ptmkb.site.drawings.measured import drawn_measures, measured_drawing

__all__ = [
    "Sizes",
    "block_diagram",
    "drawing",
    "drawing_names",
    "drawn_measures",
    "flow_matrix",
    "measured_drawing",
]
