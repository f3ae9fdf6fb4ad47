"""Which of the places with the very same lines is the anchor's, if that can be proved.

Being wrong here is the one unforgivable result, so every rule below says what would make it wrong and asks for evidence against that.
Where none of them holds the answer is None, and the caller says `changed` or `lost`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ptmkb.annotations.anchors import Anchor, describe
from ptmkb.annotations.evidence import DISTINCT, MARGIN, PROOF, STRONG, WEAK, context_agreement
from ptmkb.annotations.text import EDGE, SourceText, squash
from ptmkb.source import MODULE


@dataclass(frozen=True, slots=True)
class Verdict:
    """What could be proved.

    Attributes:
        place: first line of the anchor's lines, or None.
        reason: why this place, or why none; one sentence without its full stop.
        others: places that are certainly not the anchor's: the twins that were there at home.
        guess: the likeliest place where none is proved, or None where none is likelier than others.
    """

    place: int | None
    reason: str
    others: tuple[int, ...] = ()
    guess: int | None = None


def identify(anchor: Anchor, source: SourceText, places: Sequence[int]) -> Verdict:
    """Choose among places with the same lines.

    Args:
        anchor: the anchor.
        source: the text.
        places: first lines of all places with the same lines; at least one.

    Returns:
        The place that is proved to be the anchor's, or None with the reason.
    """
    length = len(anchor.quote)
    within = [place for place in places if source.holds(anchor.symbol, place, place + length - 1)]
    if anchor.twins is None:
        return _by_hand(anchor, source, places, within)
    if within:
        outside = [place for place in places if place not in within]
        verdict = _within(anchor, source, within, *_strangers(anchor, source, outside))
    else:
        verdict = _elsewhere(anchor, source, places)
    if verdict.place is None or not anchor.has_context:
        return verdict
    context = _contexts(anchor, source, [verdict.place])[0]
    characters = len(squash(anchor.quote))
    # Blank lines and lone brackets are nothing but their surroundings.
    needed = 1.0 if characters == 0 else WEAK if characters < DISTINCT and not within else 0.0
    # Where a blank line more stands somewhere, none is known to be the one that was there.
    if context < needed or (characters == 0 and len(places) != len(anchor.twins) + 1):
        where = describe(source, [verdict.place])
        reason = f"lines so short stand at {where}, but around them not all is as it was"
        return Verdict(None, reason, verdict.others, guess=verdict.place)
    return verdict


def surroundings_copied(anchor: Anchor, source: SourceText) -> bool:
    """Whether most lines around the anchor's stand in the text more often than at home: then the anchor's may be copied with them."""
    if anchor.home is None:
        return False
    around = {content for content in (*anchor.before, *anchor.after) if content != EDGE}
    more = [content for content in around if len(source.at(content)) > len(anchor.home.source.at(content))]
    return len(more) > len(around) / 2


def _by_hand(anchor: Anchor, source: SourceText, places: Sequence[int], within: Sequence[int]) -> Verdict:
    """An anchor whose twins at home are not known. The symbol decides, then the occurrence; a place outside the symbol is never proved."""
    if not within:
        return Verdict(
            None,
            f"the same lines stand at {describe(source, list(places))}, outside {anchor.symbol}; "
            "nothing tells whether they are the quoted ones moved or others like them",
        )
    if anchor.occurrence is None:
        if len(within) == 1:
            return Verdict(within[0], f"they stand once in {anchor.symbol}")
        chosen = _by_context(anchor, source, within, rivals=(), proof=STRONG, has_copies=True)
        if chosen is not None:
            return Verdict(chosen, "only there the lines around them agree")
        return Verdict(
            None,
            f"the same lines stand {len(within)} times in {anchor.symbol}: {describe(source, list(within))}; say which",
        )
    if anchor.of not in (None, len(within)) or len(within) < max(2, anchor.occurrence):
        known = f"{anchor.of}" if anchor.of else "at least 2"
        return Verdict(
            None,
            f"occurrence {anchor.occurrence} of {known}, but the lines stand {len(within)} times in {anchor.symbol} now",
        )
    place = within[anchor.occurrence - 1]
    contexts = _contexts(anchor, source, within)
    if contexts and contexts[anchor.occurrence - 1] < max(contexts):
        return Verdict(None, f"occurrence {anchor.occurrence} is not where the lines around them agree best")
    return Verdict(place, f"occurrence {anchor.occurrence} in {anchor.symbol}")


def _strangers(anchor: Anchor, source: SourceText, outside: Sequence[int]) -> tuple[list[float], list[int]]:
    """What is not as it was at home outside the anchor's symbol.

    Returns:
        The contexts at home of twins in symbols that hold fewer of the same lines now: those twins may be anywhere. And the places in
        symbols that hold more now: among them are copies.
    """
    holders = {place: source.holder(place, place + len(anchor.quote) - 1) for place in outside}
    now = Counter(holders.values())
    twins = [twin for twin in anchor.twins or () if twin.symbol != anchor.symbol]
    at_home = Counter(twin.symbol for twin in twins)
    astray = [twin.context for twin in twins if now[twin.symbol] < at_home[twin.symbol]]
    return astray, [place for place, holder in holders.items() if now[holder] > at_home[holder]]


def _within(
    anchor: Anchor,
    source: SourceText,
    within: Sequence[int],
    astray: Sequence[float] = (),
    copies: Sequence[int] = (),
) -> Verdict:
    """The same lines stand in the anchor's own symbol; for `astray` and `copies` see `_strangers`."""
    at_home = [twin.context for twin in anchor.twins or () if twin.symbol == anchor.symbol]
    count_at_home = len(at_home) + 1
    if count_at_home == len(within) == 1:
        if not copies and not astray:
            return Verdict(within[0], f"they stand once in {anchor.symbol}")
        # The one here may be a copy that has come, or a twin whose own symbol lost its beginning and so became part of this one: then
        # the surroundings must speak for it, and better than they did for that twin.
        if _by_context(anchor, source, within, astray, STRONG) is not None:
            return Verdict(within[0], f"they stand once in {anchor.symbol}, and the lines around them agree")
        others = (
            f"copies came to {describe(source, list(copies))}"
            if copies
            else "others like them left their places"
        )
        return Verdict(
            None,
            f"they stand once in {anchor.symbol}, but {others}, and the lines around them do not tell which these are",
            guess=within[0],
        )
    if len(within) == count_at_home and (place := _by_order(anchor, source, within, at_home)) is not None:
        return Verdict(place, f"the same {len(within)} places in {anchor.symbol} as at home, in their order")
    # With one gone, what is left may all be twins: then only an untouched context is proof.
    proof = STRONG if len(within) >= count_at_home else PROOF
    has_copies = len(within) > count_at_home
    place = _by_context(anchor, source, within, [*at_home, *astray], proof, has_copies=has_copies)
    if place is not None:
        return Verdict(place, "only there the lines around them agree")
    return Verdict(
        None,
        f"the same lines stand {len(within)} times in {anchor.symbol} ({describe(source, list(within))}), "
        f"{count_at_home} at home, and the lines around them do not tell which",
    )


def _elsewhere(anchor: Anchor, source: SourceText, places: Sequence[int]) -> Verdict:
    """The same lines stand only outside the anchor's symbol: a renamed symbol, moved code, or nothing but twins."""
    length = len(anchor.quote)
    twins = anchor.twins or ()
    now = Counter(source.holder(place, place + length - 1) for place in places)
    at_home = Counter(twin.symbol for twin in twins if twin.symbol != anchor.symbol)
    count_in_symbol = 1 + sum(twin.symbol == anchor.symbol for twin in twins)
    renamings = set(_renamings(anchor, source, now, at_home, count_in_symbol))
    if len(renamings) == 1:
        renamed = renamings.pop()
        inside = [place for place in places if source.holder(place, place + length - 1) == renamed]
        verdict = _within(anchor, source, inside)
        return Verdict(
            verdict.place,
            f"{anchor.symbol} is {renamed} now; {verdict.reason}",
            verdict.others,
            verdict.guess,
        )
    if all(now[symbol] == count for symbol, count in at_home.items()):
        # Every twin is where it was, so what is new is what moved.
        new = [place for place in places if source.holder(place, place + length - 1) not in at_home]
        others = tuple(place for place in places if place not in new)
        if not new:
            return Verdict(None, "the same lines stand only where others like them stood at home", others)
        # In a text that does not parse, names are guesses, and a place in another symbol may be a twin's, if there were twins.
        if len(new) == count_in_symbol == 1 and not (twins and source.module.error):
            return Verdict(new[0], f"they moved from {anchor.symbol}", others)
        # Where the symbol is still there without them, a copy that kept their surroundings is no likelier than one that left.
        gone = not source.module.named(anchor.symbol) and not source.module.error
        place = _by_context(anchor, source, new, [], STRONG) if gone and len(new) <= count_in_symbol else None
        if place is not None:
            return Verdict(place, "only there the lines around them agree", others)
        return Verdict(
            None,
            f"the same lines stand at {describe(source, new)}, and nothing tells which of them moved",
            others,
        )
    # With copies among them, the copy may have kept the surroundings and the anchor's own lines not.
    place = (
        _by_context(anchor, source, places, [twin.context for twin in twins], PROOF)
        if len(places) <= len(twins) + 1
        else None
    )
    if place is not None:
        return Verdict(place, "only there the lines around them agree")
    return Verdict(
        None,
        f"the same lines stand at {describe(source, list(places))}; others like them stood at home in places that changed too, "
        "so nothing tells which are which",
    )


def _renamings(
    anchor: Anchor, source: SourceText, now: Counter[str], at_home: Counter[str], count_in_symbol: int
) -> Iterator[str]:
    """New names of the anchor's symbol under which every count of the same lines is what it was at home.

    The symbol, or a class around it, has gone and another name has come: `old` → `new`. A symbol that had these lines at home cannot be
    the new name, since its own are counted there; so a twin is never taken for the renamed symbol.
    """
    if anchor.symbol == MODULE:
        return
    parts = anchor.symbol.split(".")
    expected = at_home + Counter({anchor.symbol: count_in_symbol})
    for depth in range(1, len(parts) + 1):
        old = ".".join(parts[:depth])
        if source.module.named(old):
            continue
        for candidate in now:
            new_parts = candidate.split(".")
            # The same depth and the same rest of the name: only this one name changed.
            if (
                len(new_parts) < depth
                or new_parts[depth:] != parts[depth:]
                or new_parts[: depth - 1] != parts[: depth - 1]
            ):
                continue
            new = ".".join(new_parts[:depth])
            renamed: Counter[str] = Counter()
            for name, count in expected.items():
                renamed[_renamed(name, old, new)] += count
            if candidate != MODULE and candidate not in anchor.neighbours and renamed == now:
                yield candidate


def _renamed(name: str, old: str, new: str) -> str:
    return new + name.removeprefix(old) if name == old or name.startswith(old + ".") else name


def _contexts(anchor: Anchor, source: SourceText, places: Sequence[int]) -> list[float]:
    if not anchor.has_context:
        return []
    length = len(anchor.quote)
    return [
        context_agreement(source, anchor.before, anchor.after, place, place + length - 1) or 0.0
        for place in places
    ]


def _by_context(
    anchor: Anchor,
    source: SourceText,
    places: Sequence[int],
    rivals: Sequence[float],
    proof: float,
    *,
    has_copies: bool = False,
) -> int | None:
    """The place whose surroundings are the anchor's, better than any other's, and better than any twin's were at home.

    The last matters most: a twin that fitted to 0.8 at home still fits to 0.8 when the anchor's lines have gone. Where there are more
    places than at home, no other may fit even half: a copy taken with its surroundings fits better than lines edited near.
    """
    contexts = _contexts(anchor, source, places)
    if not contexts:
        return None
    best = max(range(len(places)), key=contexts.__getitem__)
    others = [context for index, context in enumerate(contexts) if index != best]
    if has_copies and any(context >= WEAK for context in others):
        return None
    bar = max([*rivals, *others], default=0.0)
    return places[best] if contexts[best] >= proof and contexts[best] > bar + MARGIN else None


def _by_order(
    anchor: Anchor, source: SourceText, within: Sequence[int], at_home: Sequence[float]
) -> int | None:
    """The place at the anchor's own rank, if every twin is still at its own rank with the context that it had at home.

    Then nothing happened to the twins, and the one place left is the anchor's: its own context may have changed, or may be
    no different from a twin's. A move past a twin changes a context, and the rule does not hold.
    """
    if anchor.occurrence is None:
        return None
    contexts = _contexts(anchor, source, within)
    rank = anchor.occurrence - 1
    others = contexts[:rank] + contexts[rank + 1 :]
    if any(abs(now - home) > 1e-9 for now, home in zip(others, at_home, strict=True)):
        return None
    if contexts[rank] >= 1 or contexts[rank] > max(others) + MARGIN:
        return within[rank]
    return None
