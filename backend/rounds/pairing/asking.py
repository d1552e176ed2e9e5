"""Questions become tasks in Label Studio, each exactly once, whatever was cut off before."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from backend import logs
from backend.errors import CandidatesUnreadable, MediaError, PairTaskInvalid
from backend.labelstudio.pair_answers import is_query
from backend.labelstudio.pair_tasks import PairItem, query_key, query_task, thumbnail
from backend.labelstudio.schema import TaskSchema
from backend.rounds.embedding import Content, Outcome, fetcher
from backend.rounds.pairing.choosing import Question
from backend.rounds.pairing.settling import CONFLICT
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
    left them there. A question whose candidates' host does not answer stays to be asked.

    Raises
    ------
    CandidatesUnreadable
        Most images that would be offered do not answer, or nothing can be asked for want of images; nothing was.
    """
    waiting = [q for q in pair_queries.every(services.store, project_id) if q.task_id == 0 and q.answer == "open"]
    if not waiting:
        return 0
    found = find_tasks(services, project_id, {q.key for q in waiting})
    pair_queries.asked(services.store, project_id, found)
    missing = [q for q in waiting if q.key not in found]
    made = _made(services, schema, project_id, missing, version, needed=not found)
    ids = services.label_studio.import_tasks(project_id, list(made.values()))
    checkpoint("made")
    task_of = dict(zip(made, ids, strict=True))
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


def _made(
    services: Services,
    schema: TaskSchema,
    project_id: int,
    questions: Sequence[PairQueryRow],
    version: str,
    *,
    needed: bool,
) -> dict[str, dict[str, object]]:
    """Key -> task of those of the questions that can be asked now; ``needed``: there is nothing else to ask."""
    shown = _contents(services, project_id, questions)
    made: dict[str, dict[str, object]] = {}
    offered: dict[str, list[tuple[int, float]]] = {}
    hopeless = []
    for question in questions:
        kept = _kept(question, shown)
        data = _task(schema, question, kept, shown, version)
        if data is not None:
            made[question.key], offered[question.key] = data, kept
        elif kept or question.purpose == CONFLICT:
            hopeless.append((question, "unreadable"))
        else:
            # None of these images can be read, so they are offered no more; others are chosen.
            hopeless.append((question, "withdrawn"))
    for question, answer in hopeless:
        if shown.silent.isdisjoint(question.candidates):
            pair_queries.answered(services.store, project_id, [_unanswered(question, answer)])
    _check_readable(shown, anything=bool(made) or not needed)
    pair_queries.offered(services.store, project_id, offered)
    return made


@dataclass(frozen=True)
class _Shown:
    """What questions can show.

    contents : number -> (item, what a candidate shows of it): the words, or a thumbnail, empty where there is none
    problems : number -> why there is no thumbnail; silent : those of them whose host may answer another time
    images : how many thumbnails were to be made
    """

    contents: dict[int, tuple[CatalogueItem, str]]
    problems: dict[int, str]
    silent: set[int]
    images: int


def _contents(services: Services, project_id: int, questions: Sequence[PairQueryRow]) -> _Shown:
    """Fetch what the questions show. An image that cannot be read is one the catalogue lists as such from now on."""
    items = catalogue.items(services.store, project_id, {n for q in questions for n in (q.item, *q.candidates)})
    wanted = sorted({n for q in questions for n in q.candidates if q.modality == "text"} & items.keys())
    fetch, problems, silent = fetcher(services.media, services.image_hosts), {}, set()

    def small(number: int) -> tuple[str, Outcome]:
        data, outcome = fetch(Content(number, items[number].content))
        try:
            return (thumbnail(data), outcome) if data is not None else ("", outcome)
        except (MediaError, PairTaskInvalid) as error:
            return "", Outcome(problem=str(error))

    contents = {n: (item, item.content if item.modality == "text" else "") for n, item in items.items()}
    with ThreadPoolExecutor(services.settings.fetch_threads) as pool:
        for number, (picture, outcome) in zip(wanted, pool.map(logs.carried(small), wanted), strict=True):
            contents[number] = (items[number], picture)
            if outcome.problem:
                log.warning("project %s: %s is not offered: %s", project_id, items[number].item_id, outcome.problem)
                problems[number] = outcome.problem
                silent |= {number} if outcome.transient else set()
    unreadable = {n: (items[n].content, "", why) for n, why in problems.items() if n not in silent}
    catalogue.embedded(services.store, project_id, services.encoder_id, unreadable)
    return _Shown(contents, problems, silent, len(wanted))


def _check_readable(shown: _Shown, *, anything: bool) -> None:
    """Ask nothing rather than questions without most of their candidates; what is asked stays to be asked."""
    if 2 * len(shown.silent) > shown.images or (shown.problems and not anything):
        # One that may answer another time first: that is what somebody can do something about.
        number = min(shown.problems, key=lambda n: (n not in shown.silent, n))
        raise CandidatesUnreadable(
            f"{len(shown.problems)} of {shown.images} images that the questions of this round would offer cannot be"
            f" had, such as {shown.contents[number][0].item_id}: {shown.problems[number]} See that their host is up"
            " and that the backend may reach it (MMAL_MEDIA_ALLOW). The questions are asked once it answers"
        )


def _kept(question: PairQueryRow, shown: _Shown) -> list[tuple[int, float]]:
    """(number, similarity) of the candidates that can be shown."""
    offered = zip(question.candidates, question.similarities, strict=True)
    kept = [(number, similarity) for number, similarity in offered if shown.contents.get(number, (None, ""))[1]]
    # Of a contradiction one side alone decides nothing.
    return [] if question.purpose == CONFLICT and len(kept) < min(2, len(question.candidates)) else kept


def _task(
    schema: TaskSchema,
    question: PairQueryRow,
    kept: Sequence[tuple[int, float]],
    shown: _Shown,
    version: str,
) -> dict[str, object] | None:
    if not kept or question.item not in shown.contents:
        return None
    item = shown.contents[question.item][0]
    candidates = [shown.contents[number] for number, _ in kept]
    try:
        return query_task(
            schema,
            modality=item.modality,  # type: ignore[arg-type]
            query=PairItem(item.item_id, item.content),
            candidates=[PairItem(candidate.item_id, content) for candidate, content in candidates],
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
