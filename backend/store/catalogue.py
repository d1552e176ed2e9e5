"""The two pools of a pairing project: images and texts, their vectors, and whether they may be asked about."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sqlalchemy import and_, case, func, select, update

from backend.store import encoder_queue, pair_queries
from backend.store.database import Store
from backend.store.encoder_queue import DEFERRED
from backend.store.engines import without_nul
from backend.store.tables import ITEM_UNREADABLE, CatalogueItem, Vector
from backend.store.tasks import CHUNK

# States of items that may be asked about or offered; a dropped one matters only as part of a pair.
LIVE = ("pool", "buffer", "judged")


@dataclass(frozen=True)
class NewItem:
    """An item to add; ``written``: the key of the query whose answer it is."""

    item_id: str
    modality: str
    content: str
    written: str = ""


class ItemRow(NamedTuple):
    """An embedded item and where its vector lies; row -1: it could not be read."""

    number: int
    item_id: str
    modality: str
    state: str
    row: int


class Held(NamedTuple):
    """How many items there are, and how many of them are embedded."""

    items: int
    embedded: int


def add(store: Store, project_id: int, items: Iterable[NewItem], *, state: str = "pool") -> int:
    """Add items, or change the content of those whose id is known; tells how many were new or changed.

    A known item keeps its number and its pairs; with a new content it is embedded again, and asked about again where
    the question about it could not be shown.
    """
    pending = {item.item_id: replace(item, content=without_nul(item.content)) for item in items}
    ids, changed, rewritten = list(pending), 0, set()
    with store.writing(project_id) as session:
        last = session.scalar(select(func.max(CatalogueItem.number)).where(CatalogueItem.project_id == project_id))
        number = last or 0
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            known = {row.item_id: row for row in session.scalars(_by_id(project_id, chunk))}
            for item_id in chunk:
                item, row = pending[item_id], known.get(item_id)
                if row is None:
                    number += 1
                    changed += 1
                    session.add(
                        CatalogueItem(
                            project_id=project_id,
                            number=number,
                            item_id=item_id,
                            modality=item.modality,
                            content=item.content,
                            written=item.written,
                            state=state,
                            embed_order=random.random(),
                            added_at=store.clock(),
                        )
                    )
                elif row.content != item.content or row.state == "dropped":
                    changed += 1
                    if row.content != item.content:
                        row.content, row.embedded_with = item.content, ""
                        rewritten.add(row.number)
                    if row.state == "dropped":
                        row.state = state
    if rewritten:
        pair_queries.reopen_unshown(store, project_id, rewritten)
    return changed


def items(store: Store, project_id: int, numbers: Iterable[int]) -> dict[int, CatalogueItem]:
    """Number to item, with its content."""
    query = select(CatalogueItem).where(CatalogueItem.project_id == project_id).order_by(CatalogueItem.number)
    wanted: list[int] = sorted(set(numbers))
    found: dict[int, CatalogueItem] = {}
    with store.reading() as session:
        for start in range(0, len(wanted), CHUNK):
            part = query.where(CatalogueItem.number.in_(wanted[start : start + CHUNK]))
            found.update({item.number: item for item in session.scalars(part)})
        return found


def written(store: Store, project_id: int) -> dict[str, int]:
    """Key of a question -> number of the text that was written as its answer and still is."""
    query = select(CatalogueItem.written, CatalogueItem.number).where(
        CatalogueItem.project_id == project_id, CatalogueItem.written != "", CatalogueItem.state != "dropped"
    )
    # Of two that versions before this one made of one key, the younger.
    query = query.order_by(CatalogueItem.number)
    with store.reading() as session:
        return dict(session.execute(query).all())


def problems(store: Store, project_id: int) -> list[tuple[str, str]]:
    """(id, why) of every item that could not be read."""
    query = (
        select(CatalogueItem.item_id, CatalogueItem.problem)
        .where(CatalogueItem.project_id == project_id, ITEM_UNREADABLE)
        .order_by(CatalogueItem.number)
    )
    with store.reading() as session:
        return [(item_id, problem) for item_id, problem in session.execute(query).all()]


def numbers_of(store: Store, project_id: int, item_ids: Iterable[str]) -> dict[str, int]:
    """Number of each of these ids that is known."""
    wanted: list[str] = list(item_ids)
    found: dict[str, int] = {}
    with store.reading() as session:
        for start in range(0, len(wanted), CHUNK):
            mine = CatalogueItem.item_id.in_(wanted[start : start + CHUNK])
            query = select(CatalogueItem.item_id, CatalogueItem.number)
            found.update(session.execute(query.where(CatalogueItem.project_id == project_id, mine)).all())
    return found


def ids_of(store: Store, project_id: int, modality: str, contents: Collection[str]) -> dict[str, list[str]]:
    """Content -> ids of the items of this modality that have it, the oldest first; without what annotators wrote."""
    if not contents:
        return {}
    longest = max(map(len, contents))
    query = (
        select(CatalogueItem.content, CatalogueItem.item_id)
        .where(
            CatalogueItem.project_id == project_id, CatalogueItem.modality == modality, CatalogueItem.written == ""
        )
        # Contents may be pictures: what is longer than all that are looked for stays in the database.
        .where(func.length(CatalogueItem.content) <= longest)
        .order_by(CatalogueItem.number)
        .execution_options(yield_per=CHUNK)
    )
    found: dict[str, list[str]] = {}
    with store.reading() as session:
        for content, item_id in session.execute(query):
            if content in contents:
                found.setdefault(content, []).append(item_id)
    return found


def rewritten(store: Store, project_id: int, given: Iterable[NewItem], among: set[int]) -> dict[str, str]:
    """Id -> present content of those of these items whose number is ``among`` and whose content would change."""
    new = {item.item_id: without_nul(item.content) for item in given}
    numbers = among.intersection(numbers_of(store, project_id, new).values())
    present = {item.item_id: item.content for item in items(store, project_id, numbers).values()}
    return {item_id: content for item_id, content in present.items() if content != new[item_id]}


def equal_contents(store: Store, project_id: int, numbers: Iterable[int]) -> dict[int, list[int]]:
    """Number -> the other items of its modality with the very same content, ascending; of these numbers and of those.

    Items that share one with nobody are not in it.
    """
    wanted = sorted(set(numbers))
    # Of a content that was changed the hash is known once it is embedded again.
    mine = and_(
        CatalogueItem.project_id == project_id, CatalogueItem.content_hash != "", CatalogueItem.embedded_with != ""
    )
    columns = select(CatalogueItem.modality, CatalogueItem.content_hash, CatalogueItem.number)
    groups: dict[tuple[str, str], list[int]] = {}
    with store.reading() as session:
        hashes = set()
        for start in range(0, len(wanted), CHUNK):
            named = CatalogueItem.number.in_(wanted[start : start + CHUNK])
            hashes |= {digest for _, digest, _ in session.execute(columns.where(mine, named))}
        hashed = sorted(hashes)
        for start in range(0, len(hashed), CHUNK):
            part = CatalogueItem.content_hash.in_(hashed[start : start + CHUNK])
            for modality, digest, number in session.execute(columns.where(mine, part)):
                groups.setdefault((modality, digest), []).append(number)
    shared = [sorted(group) for group in groups.values() if len(group) > 1]
    return {number: [n for n in group if n != number] for group in shared for number in group}


def vector_rows(store: Store, project_id: int, encoder_id: str, dropped: Iterable[int] = ()) -> list[ItemRow]:
    """Embedded items in the order of their numbers: all that are not dropped, and those of ``dropped``."""
    joined = and_(
        Vector.encoder_id == encoder_id,
        Vector.modality == CatalogueItem.modality,
        Vector.content_hash == CatalogueItem.content_hash,
    )
    query = (
        select(
            CatalogueItem.number,
            CatalogueItem.item_id,
            CatalogueItem.modality,
            CatalogueItem.state,
            func.coalesce(Vector.row, -1),
        )
        .outerjoin(Vector, joined)
        .where(CatalogueItem.project_id == project_id, CatalogueItem.embedded_with == encoder_id)
    )
    wanted = sorted(set(dropped))
    with store.reading() as session:
        found = [ItemRow(*row) for row in session.execute(query.where(CatalogueItem.state.in_(LIVE)))]
        for start in range(0, len(wanted), CHUNK):
            mine = CatalogueItem.number.in_(wanted[start : start + CHUNK]), CatalogueItem.state.not_in(LIVE)
            found += [ItemRow(*row) for row in session.execute(query.where(*mine))]
    return sorted(found)


def to_embed(store: Store, project_id: int, encoder_id: str, limit: int) -> list[CatalogueItem]:
    """The next items for the encoder, in the order of a uniform draw."""
    return encoder_queue.next_rows(store, CatalogueItem, project_id, encoder_id, limit)


def deferred(store: Store, project_id: int, limit: int) -> list[CatalogueItem]:
    """A random few of the images that could not be had for now."""
    return encoder_queue.deferred_rows(store, CatalogueItem, project_id, limit)


def waiting_for_images(store: Store, project_id: int, encoder_id: str, *states: str) -> int:
    """How many items, of all or of these states, have no vector because they could not be had for now."""
    of = [CatalogueItem.state.in_(states)] if states else []
    return encoder_queue.count_deferred(store, CatalogueItem, project_id, *of, without_vectors_of=encoder_id)


def defer(store: Store, project_id: int, problems: Mapping[int, tuple[str, str]]) -> None:
    """Note number -> (content, why) of images that could not be had for now; they are tried again after a pause."""
    with store.writing(project_id) as session:
        for number, (content, problem) in problems.items():
            session.execute(
                _unchanged(project_id, number, content).values(
                    problem=problem, embed_order=DEFERRED + random.random(), embed_again=False
                )
            )


def _unchanged(project_id: int, number: int, content: str) -> Any:
    return update(CatalogueItem).where(
        CatalogueItem.project_id == project_id, CatalogueItem.number == number, CatalogueItem.content == content
    )


def embedded(store: Store, project_id: int, encoder_id: str, outcomes: Mapping[int, tuple[str, str, str]]) -> None:
    """Note number -> (content, hash, problem); an item whose content changed meanwhile keeps waiting."""
    with store.writing(project_id) as session:
        for number, (content, digest, problem) in outcomes.items():
            session.execute(
                _unchanged(project_id, number, content).values(
                    embedded_with=encoder_id,
                    content_hash=digest,
                    problem=problem,
                    embed_order=random.random(),
                    embed_again=False,
                )
            )


def retry_problems(store: Store, project_id: int) -> int:
    """Send every item that could not be read through the encoder again; tells how many.

    Items whose question could not be shown may be asked about again.
    """
    pair_queries.reopen_unshown(store, project_id)
    return encoder_queue.try_again(store, CatalogueItem, project_id)


def set_state(store: Store, project_id: int, numbers: Iterable[int], state: str) -> None:
    """Put these items into a state."""
    pending = sorted(set(numbers))
    with store.writing(project_id) as session:
        for start in range(0, len(pending), CHUNK):
            session.execute(
                update(CatalogueItem)
                .where(
                    CatalogueItem.project_id == project_id,
                    CatalogueItem.number.in_(pending[start : start + CHUNK]),
                )
                .values(state=state)
            )


def held(store: Store, project_id: int, encoder_id: str) -> dict[tuple[str, str], Held]:
    """(modality, state) -> how many items there are."""
    embedded = func.sum(case((CatalogueItem.embedded_with == encoder_id, 1), else_=0))
    query = (
        select(CatalogueItem.modality, CatalogueItem.state, func.count(), embedded)
        .where(CatalogueItem.project_id == project_id)
        .group_by(CatalogueItem.modality, CatalogueItem.state)
    )
    with store.reading() as session:
        return {(modality, state): Held(*numbers) for modality, state, *numbers in session.execute(query)}


def counts(store: Store, project_id: int, encoder_id: str) -> dict[str, dict[str, int]]:
    """modality -> state -> items; besides "embedded" and "unreadable" of each modality."""
    found: dict[str, dict[str, int]] = {}
    for (modality, state), there in held(store, project_id, encoder_id).items():
        of_modality = found.setdefault(modality, {})
        of_modality[state] = there.items
        if there.embedded:
            of_modality["embedded"] = of_modality.get("embedded", 0) + there.embedded
    query = (
        select(CatalogueItem.modality, func.count())
        .where(CatalogueItem.project_id == project_id, ITEM_UNREADABLE)
        .group_by(CatalogueItem.modality)
    )
    with store.reading() as session:
        for modality, count in session.execute(query):
            found[modality]["unreadable"] = count
    return found


def _by_id(project_id: int, item_ids: Sequence[str]) -> Any:
    return select(CatalogueItem).where(CatalogueItem.project_id == project_id, CatalogueItem.item_id.in_(item_ids))
