"""A tree of `transformers` source, read without importing it: its files, its symbols, and who took code from whom.

Nothing here runs a line of what it reads: text, `ast` and the packages' metadata are all it needs, so it works without torch and on
any release, installed, unpacked or still a wheel. What notes say about the lines is left to `ptmkb.annotations`.
"""

from ptmkb.source.errors import SourceError, SourceFileNotFoundError, SymbolNotFoundError, TreeNotFoundError
from ptmkb.source.index import Hit, IndexedSymbol, IndexUnavailableError, SourceIndex, index_path
from ptmkb.source.indexing import IndexUpdate, update_index
from ptmkb.source.links import Link
from ptmkb.source.module import MODULE, Module, Symbol, parse_module, split_lines
from ptmkb.source.relations import CodeRelation, code_relations
from ptmkb.source.tree import SourceTree, find_tree, model_directory

__all__ = [
    "MODULE",
    "CodeRelation",
    "Hit",
    "IndexUnavailableError",
    "IndexUpdate",
    "IndexedSymbol",
    "Link",
    "Module",
    "SourceError",
    "SourceFileNotFoundError",
    "SourceIndex",
    "SourceTree",
    "Symbol",
    "SymbolNotFoundError",
    "TreeNotFoundError",
    "code_relations",
    "find_tree",
    "index_path",
    "model_directory",
    "parse_module",
    "split_lines",
    "update_index",
]
