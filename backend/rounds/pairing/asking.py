"""Questions become tasks in Label Studio, each exactly once, whatever was cut off before."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from backend import logs
from backend.errors import MediaError, PairTaskInvalid
from backend.labelstudio.pair_answers import is_query
from backend.labelstudio.pair_tasks import PairItem, other, query_key, query_task, thumbnail
from backend.labelstudio.schema import TaskSchema
from backend.rounds.pairing.choosing import Question
from backend.rounds.reasons import PAIR_REASONS
from backend.rounds.services import Services
from backend.store import catalogue, pair_queries, tasks
from backend.store.tables import CatalogueItem, PairQueryRow, Round

log = logging.getLogger(__name__)


def note_questions(services: Services, opened: Round, questions: Sequence[Question]) -> None:
    """Keep what is about to be asked: from now on a crash loses no question and asks none twice."""
    items = catalogue.items(services.store, opened.project_id, [q.item for q in questions])
    pair_queries.choose(
        services.store,
        opened.project_id,
        [
            {
                "key": query_key(opened.number, q.modality, items[q.item].item_id, q.purpose),
                "round_number": opened.number,
                "modality": q.modality,
                "item": q.item,
                "candidates": q.candidates,
                "similarities": q.similarities,
                "purpose": q.purpose,
                "why": q.why,
                "figures": q.figures,
            }
            for q in questions
        ],
    )


def ask(
    services: Services, schema: TaskSchema, project_id: int, version: str, checkpoint: Callable[[str], None]
) -> int:
    """Make the tasks of all questions that have none, by one bulk import; tells how many were made.

    Label Studio is asked first which keys have a task: a worker that died between the import and the note of it
    left them there.
    """
    waiting = [q for q in pair_queries.every(services.store, project_id) if q.task_id == 0 and q.answer == "open"]
    if not waiting:
        return 0
    found = find_tasks(services, project_id, {q.key for q in waiting})
    pair_queries.asked(services.store, project_id, found)
    missing = [q for q in waiting if q.key not in found]
    shown = _contents(services, project_id, missing)
    made: list[tuple[str, dict[str, object]]] = []
    for question in missing:
        data = _task(schema, question, shown, version)
        if data is None:
            # Nothing of it can be shown any more; it is not asked about again before its content changes.
            pair_queries.answered(services.store, project_id, [_unanswered(question, "unreadable")])
        else:
            made.append((question.key, data))
    ids = services.label_studio.import_tasks(project_id, [data for _, data in made])
    checkpoint("made")
    task_of = dict(zip([key for key, _ in made], ids, strict=True))
    pair_queries.asked(services.store, project_id, task_of)
    tasks.remember(
        services.store,
        project_id,
        [tasks.Inputs(task_id, "", "") for task_id in [*found.values(), *ids]],
        urgent=True,
    )
    return len(ids)


def find_tasks(services: Services, project_id: int, keys: Iterable[str]) -> dict[str, int]:
    """Key -> task of those of these questions that have a task in Label Studio; the oldest, where there are two."""
    wanted = set(keys)
    known = tasks.live_ids(services.store, project_id)
    # The task of a question without one is younger than any task we know of.
    unknown = services.label_studio.task_ids(project_id) - known
    found: dict[str, int] = {}
    doubled: list[int] = []
    for task_id, snapshot in sorted(services.label_studio.tasks_by_id(project_id, unknown).items()):
        key = str(snapshot.data.get("query_key", "")) if is_query(snapshot.data) else ""
        if key in found:
            doubled.append(task_id)
        elif key in wanted:
            found[key] = task_id
    if doubled:
        deleted = services.label_studio.delete_untouched_tasks(project_id, doubled)
        log.warning(
            "project %s: %d questions had two tasks; %d younger ones that nobody had touched are deleted",
            project_id,
            len(doubled),
            len(deleted),
        )
    return found


def withdraw(services: Services, project_id: int, questions: Sequence[PairQueryRow]) -> None:
    """Delete the tasks of questions that nobody needs answered any more, but for those that somebody worked on.

    These stay open: an answer that came since the round read the answers is read by the next look.
    """
    ids = {q.task_id for q in questions if q.task_id}
    deleted = services.label_studio.delete_untouched_tasks(project_id, ids) if ids else set()
    tasks.drop(services.store, project_id, deleted)
    pair_queries.answered(
        services.store,
        project_id,
        [_unanswered(q, "withdrawn", q.task_id) for q in questions if not q.task_id or q.task_id in deleted],
    )


def _contents(
    services: Services, project_id: int, questions: Sequence[PairQueryRow]
) -> dict[int, tuple[CatalogueItem, str]]:
    """Number -> (item, what a candidate shows of it): the words, or a thumbnail; without what cannot be read."""
    items = catalogue.items(services.store, project_id, {n for q in questions for n in (q.item, *q.candidates)})
    offered = {n for q in questions for n in q.candidates if q.modality == "text"}
    media = services.media

    def small(number: int) -> tuple[int, str]:
        try:
            return number, thumbnail(media.fetch(items[number].content))
        except (MediaError, PairTaskInvalid) as error:
            log.warning("project %s: %s is not offered: %s", project_id, items[number].item_id, error)
            return number, ""

    with ThreadPoolExecutor(services.settings.fetch_threads) as pool:
        thumbnails = dict(pool.map(logs.carried(small), sorted(offered & items.keys())))
    return {
        number: (item, thumbnails.get(number, "") if item.modality == "image" else item.content)
        for number, item in items.items()
    }


def _task(
    schema: TaskSchema, question: PairQueryRow, shown: Mapping[int, tuple[CatalogueItem, str]], version: str
) -> dict[str, object] | None:
    if question.item not in shown:
        return None
    item = shown[question.item][0]
    kept = [
        (shown[number], similarity)
        for number, similarity in zip(question.candidates, question.similarities, strict=True)
        if number in shown and shown[number][1] and shown[number][0].modality == other(item.modality)  # type: ignore[arg-type]
    ]
    if not kept:
        return None
    try:
        return query_task(
            schema,
            modality=item.modality,  # type: ignore[arg-type]
            query=PairItem(item.item_id, item.content),
            candidates=[PairItem(candidate.item_id, content) for (candidate, content), _ in kept],
            similarities=[similarity for _, similarity in kept],
            model_version=version,
            round_number=question.round_number,
            purpose=question.purpose,
            reason=PAIR_REASONS[question.why],
        )
    except PairTaskInvalid as error:
        log.warning("question %s is not asked: %s", question.key, error)
        return None


def _unanswered(question: PairQueryRow, answer: str, task_id: int = 0) -> dict[str, object]:
    nobody = {"partner": 0, "further_partners": [], "answered_at": ""}
    return {"key": question.key, "task_id": task_id, "answer": answer, **nobody}
