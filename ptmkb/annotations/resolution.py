"""Find an anchor's lines in another text, and say honestly how sure that is."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from ptmkb.annotations.alignment import Match, candidates, is_shown
from ptmkb.annotations.anchors import Anchor, dedent, describe
from ptmkb.annotations.evidence import (
    CONTRARY,
    LIKE,
    MARGIN,
    NEARLY,
    STILL,
    STRONG,
    UNPROVEN,
    context_agreement,
    symbol_likeness,
)
from ptmkb.annotations.identity import Verdict, identify, surroundings_copied
from ptmkb.annotations.text import SourceText, prepared


class Status(StrEnum):
    """How a search for an anchor ends."""

    exact = "exact"
    """The same lines in the same symbol."""
    moved = "moved"
    """The same lines elsewhere: the symbol was renamed, or the code moved."""
    changed = "changed"
    """The lines changed, or cannot be told from others like them: the best match, not a promise."""
    lost = "lost"
    """No place is good enough to be shown."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """Where an anchor's lines stand in a text.

    Attributes:
        status: exact, moved, changed or lost.
        first_line: 1-based; None where lost.
        last_line: 1-based, inclusive; None where lost.
        score: how well the place fits, from 0 to 1 (`evidence.score`); at most 0.5 where nothing proves that it is the right one.
        diff: unified diff from the quote to the lines now, both dedented; empty where they are the same.
        reason: why it ended so, in one sentence without its full stop.
    """

    status: Status
    first_line: int | None
    last_line: int | None
    score: float
    diff: str
    reason: str


def resolve(anchor: Anchor, source_text: str) -> Resolution:
    """Find an anchor's lines in a text.

    `exact` and `moved` are promises: the very same lines (indentation aside), proved not to be others like them. Everything less is
    `changed`, with its score and diff, or `lost`.

    Args:
        anchor: from `make_anchor`, or a note's.
        source_text: any Python source, valid or not.

    Returns:
        The resolution; 1-based inclusive lines of `source_text`.
    """
    source = prepared(source_text)
    places = source.same_lines(anchor.quote)
    if not places:
        return _changed(anchor, source, candidates(anchor, source), "the lines changed")
    verdict = identify(anchor, source, places)
    if verdict.place is None:
        return _unproved(anchor, source, places, verdict)
    place = _place(anchor, source, verdict.place)
    has_copies = anchor.twins is not None and len(places) > 1 + len(anchor.twins)
    names_tell = place.symbol == 1 and source.module.error is None
    if place.context is not None and (has_copies or not names_tell or place.context < STRONG):
        doubt = _copied(anchor, source, places, place)
        if doubt is not None:
            return doubt
    # In a text that does not parse, surroundings are all there is to go by.
    adrift = source.module.error is not None and place.context is not None and place.context < STRONG
    if not names_tell and (has_copies or adrift or surroundings_copied(anchor, source)):
        reason = f"not proved: {describe(source, [place.first])} may be a copy"
        return Resolution(Status.changed, place.first, place.last, min(UNPROVEN, place.score), "", reason)
    status = Status.exact if place.symbol == 1 else Status.moved
    return Resolution(status, place.first, place.last, place.score, "", verdict.reason)


def _copied(anchor: Anchor, source: SourceText, places: Sequence[int], place: Match) -> Resolution | None:
    """The same lines in other surroundings or another symbol: a copy, if an edited version stands where they were."""
    # Where the symbol is gone or the text does not parse, names tell nothing of where the lines were.
    names_tell = bool(source.module.named(anchor.symbol)) and source.module.error is None
    bar = max(STRONG, (place.context or 0) + CONTRARY)

    def is_ours(match: Match) -> bool:
        if place.symbol < 1 and match.symbol == 1 and match.text >= STILL:
            return True
        if names_tell and match.symbol < 1:
            return False
        stayed = match.context is not None and match.context >= bar and match.text >= STRONG
        # Places much like the quote that were there at home are no candidates, so this one was the quote, or came with the copy.
        return stayed or (match.text >= NEARLY and anchor.twins is not None)

    edited = [match for match in candidates(anchor, source, places) if is_ours(match)]
    if not edited and place.symbol < 1 and (place.context or 0) < STRONG and anchor.twins is not None:
        # Neither the symbol nor the surroundings speak for the place: the quote may as well be what is like it in a third place.
        quote = replace(anchor, before=(), after=())
        edited = [match for match in candidates(quote, source, places, everywhere=True) if match.text >= LIKE]
    if not edited:
        return None
    there = describe(source, [place.first])
    if edited[0].score > place.score or (edited[0].context or 0) >= bar:
        return _changed(anchor, source, edited, f"edited; a copy as it was stands at {there}")
    reason = f"not proved: {describe(source, [edited[0].first])} is much like these lines, and {there} may be a copy"
    return Resolution(Status.changed, place.first, place.last, min(UNPROVEN, place.score), "", reason)


def _place(anchor: Anchor, source: SourceText, first: int) -> Match:
    """A place with the very same lines."""
    last = first + len(anchor.quote) - 1
    context = context_agreement(source, anchor.before, anchor.after, first, last)
    return Match(first, last, 1.0, context, symbol_likeness(source, anchor.symbol, first, last))


def _unproved(anchor: Anchor, source: SourceText, places: Sequence[int], verdict: Verdict) -> Resolution:
    """The same lines were found, and nothing proves that any of them are the anchor's."""
    edited = candidates(anchor, source, places)
    if anchor.has_context and edited and edited[0].context is not None and edited[0].context >= STRONG:
        # The surroundings hold an edited version, and none of the places that hold the same lines.
        return _changed(anchor, source, edited, f"the lines changed; elsewhere, {verdict.reason}")
    likely = [place for place in places if place not in verdict.others]
    open_places = [
        _place(anchor, source, place) for place in (likely if verdict.guess is None else [verdict.guess])
    ]
    ranked = sorted(open_places, key=lambda match: -match.score)
    if ranked and (len(ranked) == 1 or ranked[0].score > ranked[1].score + MARGIN):
        best = ranked[0]
        return Resolution(
            Status.changed,
            best.first,
            best.last,
            min(UNPROVEN, best.score),
            "",
            f"not proved: {verdict.reason}",
        )
    if not ranked:
        return _changed(anchor, source, edited, f"the lines changed; {verdict.reason}")
    return Resolution(Status.lost, None, None, 0.0, "", verdict.reason)


def _changed(anchor: Anchor, source: SourceText, matches: Sequence[Match], reason: str) -> Resolution:
    """The best of the edited places, if it is good enough."""
    good = [match for match in matches if is_shown(match)]
    if not good:
        return Resolution(
            Status.lost, None, None, 0.0, "", "nothing in the text is enough like the quoted lines"
        )
    best = good[0]
    rivals = [match for match in good[1:] if match.first > best.last or match.last < best.first]
    value = best.score
    if rivals and rivals[0].score > best.score - MARGIN:
        value = min(UNPROVEN, value)
        reason = f"{reason}; line {rivals[0].first} is as good a match"
    now = dedent(source.lines[best.first - 1 : best.last])
    diff = "\n".join(difflib.unified_diff(anchor.quote, now, "quoted", "now", lineterm=""))
    return Resolution(Status.changed, best.first, best.last, value, diff, reason)
