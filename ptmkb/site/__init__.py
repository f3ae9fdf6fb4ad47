"""The site: pure functions from the rooms' data to Markdown pages, a thin MkDocs plugin, assets, and the builder.

for section in sections(gather("en")):
for page in section.pages:
print(page.path)                # plain Markdown with relative links, which any engine can build
"""

from __future__ import annotations

from ptmkb.site.chapters import chapters
from ptmkb.site.knowledge import Knowledge, Language, gather
from ptmkb.site.page import Page
from ptmkb.site.pages import Section, sections

__all__ = ["Knowledge", "Language", "Page", "Section", "chapters", "gather", "sections"]
