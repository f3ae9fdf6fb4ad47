"""From dotted paths to definitions: which file and symbol of the tree a statement of `ptmkb.source.records` means.

This needs the whole tree at once, and is quick: it runs again whenever a file of the index has changed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ptmkb.source.module import MODULE
from ptmkb.source.records import LinkRow, dotted
from ptmkb.source.tree import model_directory


class Link(NamedTuple):
    """A statement that code comes from elsewhere, with the place that it means.

    Attributes:
        file: the file that says it.
        line: where, 1-based.
        symbol: who has the code, by its qualified name in that file; `<module>` for the whole file.
        kind: "inherits", "generated" or "copied"; see `ptmkb.source.records.LinkRow`.
        target: the dotted path, as written.
        target_file: the file that it means, "" where the tree has none (a model that was taken out, a moved definition).
        target_symbol: the symbol there, `<module>` for the whole file, "" as above.
        note: what a copied-from mark adds.
    """

    file: str
    line: int
    symbol: str
    kind: str
    target: str
    target_file: str
    target_symbol: str
    note: str


def resolve_links(
    stated: Mapping[str, Iterable[LinkRow]], symbols: Mapping[str, Iterable[str]]
) -> list[Link]:
    """Find what each statement means.

    A generated file says so once, for all of it; here each of its definitions gets its own link, to the definition of that name in the
    modular file or to the one that the modular file imports from another model under that name. What came along unnamed gets none. The
    imports themselves ("uses") are no links: a name that is imported to be inherited from would count twice.

    Args:
        stated: what each file states.
        symbols: the qualified names that each file of the tree defines.

    Returns:
        The links, in the order of the files.
    """
    places = _Places(symbols)
    used = {
        (file, row["symbol"]): places.find(row["target"])
        for file, rows in stated.items()
        for row in rows
        if row["kind"] == "uses"
    }
    links = []
    for file, rows in stated.items():
        for row in rows:
            if row["kind"] == "uses":
                continue
            target_file, target_symbol = places.find(row["target"])
            common = (row["line"], row["symbol"], row["kind"], row["target"])
            links.append(Link(file, *common, target_file, target_symbol, row["note"]))
            if row["kind"] == "generated" and target_file:
                for name in sorted(set(symbols[file])):
                    if name in places.names[target_file]:
                        origin = (target_file, name)
                    elif "." not in name and (target_file, name) in used:
                        origin = used[target_file, name]
                    else:
                        continue
                    links.append(Link(file, row["line"], name, "generated", row["target"], *origin, ""))
    return links


def times_taken(links: Iterable[Link]) -> Counter[tuple[str, str]]:
    """How many definitions take each definition: inherit from it, copy it, or are generated from it. Those of its own model do not count."""
    takers = {
        (link.file, link.symbol, link.target_file, link.target_symbol)
        for link in links
        if link.target_symbol not in ("", MODULE) and not _at_home(link)
    }
    return Counter((file, symbol) for *_, file, symbol in takers)


def _at_home(link: Link) -> bool:
    model = model_directory(link.file)
    return link.file == link.target_file or (model is not None and model == model_directory(link.target_file))


class _Places:
    """The definitions of a tree, by dotted path."""

    def __init__(self, symbols: Mapping[str, Iterable[str]]) -> None:
        self.names = {file: frozenset(names) for file, names in symbols.items()}
        self._file = {dotted(file): file for file in self.names}
        self._definers: dict[str, list[str]] = defaultdict(list)
        for file, names in self.names.items():
            for name in names:
                if "." not in name:
                    self._definers[name].append(file)

    def find(self, target: str) -> tuple[str, str]:
        """The file and symbol that a dotted path means; ("", "") where the tree has none or more than one."""
        parts = target.split(".")
        for count in range(len(parts), 0, -1):
            file = self._file.get(".".join(parts[:count]))
            if file is None:
                continue
            name = ".".join(parts[count:])
            if not name:
                return file, MODULE
            if name in self.names[file]:
                return file, name
            # Modules hand on what others define, so a name that one file alone defines is meant: one of the folder's, else of all.
            definers = self._definers.get(parts[count], [])
            folder = file.removesuffix("__init__.py")
            for among in ([one for one in definers if one.startswith(folder)], definers):
                if len(among) == 1 and name in self.names[among[0]]:
                    return among[0], name
            return "", ""
        return "", ""
