"""Rounds, the queue each one chose, and the head it fitted."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save
from sqlalchemy import Update, delete, func, or_, select, update

from backend.store import faults, projects
from backend.store.control_sample import forgetting_unanswered
from backend.store.database import Store
from backend.store.tables import Project, QueueEntry, Round, Task
from backend.store.tasks import in_pool

KEPT_HEADS = 5
# Nothing that is deleted was read in the same session.
UNSEEN = {"synchronize_session": False}


class RoundName(NamedTuple):
    """A round and the version it was to publish."""

    id: int
    number: int
    version: str


def start(
    store: Store,
    project_id: int,
    *,
    number: int,
    version: str,
    trigger: str,
    strategy: str,
    options: dict[str, Any],
    seed: int,
) -> Round:
    """Open a round; its number is used up whatever becomes of it.

    In the same transaction the request that it answers is off: whenever a worker dies, either the request or an open
    round says that a round is wanted.
    """
    with store.writing(project_id) as session:
        opened = Round(
            project_id=project_id,
            number=number,
            version=version,
            trigger=trigger,
            strategy=strategy,
            options=options,
            seed=seed,
            started_at=store.clock(),
        )
        session.add(opened)
        mine = update(Project).where(Project.id == project_id)
        session.execute(mine.values(round_number=number))
        session.execute(mine.where(Project.round_requested == trigger).values(round_requested=""))
    return opened


def choose_by(store: Store, opened: Round, *, version: str, strategy: str, options: dict[str, Any]) -> None:
    """Note what a round chooses by, where that changed after it was opened; nothing of it is in Label Studio yet."""
    changes = {"version": version, "strategy": strategy, "options": options}
    with store.statement() as session:
        session.execute(update(Round).where(Round.id == opened.id, Round.status == "running").values(**changes))
    for name, value in changes.items():
        setattr(opened, name, value)


def reach(store: Store, round_id: int, step: str, **fields: Any) -> None:
    """Note the last point the round reached."""
    with store.statement() as session:
        session.execute(update(Round).where(Round.id == round_id).values(step=step, **fields))


def set_queue(store: Store, round_id: int, entries: Iterable[dict[str, Any]]) -> None:
    """Replace the queue of a round, ranks in the order given."""
    with store.statement() as session:
        session.execute(delete(QueueEntry).where(QueueEntry.round_id == round_id))
        session.add_all(QueueEntry(round_id=round_id, rank=i, **entry) for i, entry in enumerate(entries))


def put_in_force(store: Store, opened: Round) -> None:
    """The round's version is what Label Studio serves now: one transaction, so never half."""
    now = store.clock()
    with store.statement() as session:
        session.execute(update(Round).where(Round.id == opened.id).values(status="published", finished_at=now))
        session.execute(forgetting_unanswered(opened))
        session.execute(
            update(Project)
            .where(Project.id == opened.project_id)
            .values(version=opened.version, published_at=now, failures=0, round_not_before=0.0)
        )


def close(store: Store, round_id: int, status: str) -> None:
    """End a round that has nothing to publish; one that ended already stays as it is."""
    with store.statement() as session:
        session.execute(_ending(round_id, status, "", store.clock()))


def give_up(
    store: Store, opened: Round, status: str, error: str, *, longest: float = projects.LONGEST_BACKOFF
) -> bool:
    """End a round that was not published, and ask, after a pause, once more for what it was to answer.

    One transaction: whenever a worker dies, either the request or an open round says that a round is wanted.

    Returns
    -------
    bool
        False, and nothing was changed, where the round had ended already: it was published, or another worker took
        it over.
    """
    now = store.clock()
    with store.writing(opened.project_id) as session:
        ended = session.execute(_ending(opened.id, status, error, now))
        if ended.rowcount == 0:  # type: ignore[attr-defined]
            return False
        projects.note_failure(
            session, opened.project_id, error, now, pause=True, longest=longest, ask_again=opened.trigger
        )
        return True


def _ending(round_id: int, status: str, error: str, now: float) -> Update:
    running = update(Round).where(Round.id == round_id, Round.status == "running")
    return running.values(status=status, error=error, finished_at=now)


def get(store: Store, round_id: int) -> Round | None:
    """The round of this id."""
    with store.reading() as session:
        return session.get(Round, round_id)


def in_force(store: Store, project: Project) -> Round | None:
    """The round whose queue Label Studio serves."""
    if not project.version:
        return None
    with store.reading() as session:
        return session.scalar(select(Round).where(Round.project_id == project.id, Round.version == project.version))


def is_choosing_or_in_force(store: Store, project_id: int) -> bool:
    """Whether a queue is in force, or a round is open that may have begun to choose one."""
    in_force = select(Project.id).where(Project.id == project_id, Project.version != "")
    opened = select(Round.id).where(Round.project_id == project_id, Round.status == "running")
    with store.reading() as session:
        return bool(session.scalar(select(or_(in_force.exists(), opened.exists()))))


def of_project(store: Store, project_id: int, *statuses: str, limit: int = 1000) -> list[Round]:
    """Rounds of a project, the latest first."""
    with store.reading() as session:
        query = select(Round).where(Round.project_id == project_id).order_by(Round.id.desc()).limit(limit)
        return list(session.scalars(query.where(Round.status.in_(statuses)) if statuses else query))


def names(store: Store, project_id: int, *statuses: str) -> list[RoundName]:
    """What all rounds of a project are called, however many they are."""
    with store.reading() as session:
        query = select(Round.id, Round.number, Round.version).where(Round.project_id == project_id)
        rows = session.execute(query.where(Round.status.in_(statuses)) if statuses else query)
        return [RoundName(*row) for row in rows]


def forget_superseded(store: Store, in_force: Round) -> int:
    """Delete the places of earlier queues whose tasks were chosen again, or that were never served; tells how many.

    Kept is the latest place of each task, which explains it: a project has no more places than tasks, however many
    rounds it has. To be called once the versions before are gone from Label Studio: their queues say whose rows those
    are.
    """
    mine, chosen = QueueEntry.project_id == in_force.project_id, QueueEntry.round_id == in_force.id
    chosen_again = mine & QueueEntry.task_id.in_(select(QueueEntry.task_id).where(chosen))
    ended = (Round.project_id == in_force.project_id) & Round.status.in_(("failed", "abandoned", "empty"))
    never_served = QueueEntry.round_id.in_(select(Round.id).where(ended))
    gone = 0
    with store.statement() as session:
        # Two statements, for each of which there is an index.
        for useless in (chosen_again, never_served):
            old = useless & (QueueEntry.round_id < in_force.id)
            deleted = session.execute(delete(QueueEntry).where(old), execution_options=UNSEEN)
            gone += int(deleted.rowcount)  # type: ignore[attr-defined]
    return gone


def queue(store: Store, round_id: int) -> list[QueueEntry]:
    """The queue in its order, answered tasks included."""
    with store.reading() as session:
        return list(
            session.scalars(select(QueueEntry).where(QueueEntry.round_id == round_id).order_by(QueueEntry.rank))
        )


def remaining(store: Store, round_id: int) -> tuple[int, int]:
    """(tasks of the queue, tasks of its batch) that nobody has answered."""
    with store.reading() as session:
        rows = session.execute(
            select(QueueEntry.role, func.count())
            .join(Task, (Task.project_id == QueueEntry.project_id) & (Task.task_id == QueueEntry.task_id))
            .where(QueueEntry.round_id == round_id, ~Task.deleted, in_pool())
            .group_by(QueueEntry.role)
        )
        left: dict[str, int] = dict(rows.all())
    return sum(left.values()), sum(count for role, count in left.items() if role != "reserve")


def last_entry(store: Store, project_id: int, task_id: int) -> tuple[QueueEntry, Round] | None:
    """The latest queue place of a task that was published."""
    with store.reading() as session:
        found = session.execute(
            select(QueueEntry, Round)
            .join(Round, Round.id == QueueEntry.round_id)
            .where(
                QueueEntry.project_id == project_id,
                QueueEntry.task_id == task_id,
                Round.status == "published",
            )
            .order_by(Round.id.desc())
            .limit(1)
        ).first()
        return (found[0], found[1]) if found else None


def save_head(store: Store, opened: Round, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> Path:
    """Write the head of a round as safetensors; of the project's others the latest stay, and the one in force."""
    folder = store.data_dir / "heads" / str(opened.project_id)
    path = folder / f"{opened.number:06d}.safetensors"
    draft = path.with_suffix(".draft")
    with faults.space_needed(store.data_dir):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            # Heads are small; written here and not by safetensors, whose errors have no number.
            draft.write_bytes(save({k: np.ascontiguousarray(v) for k, v in arrays.items()}, metadata))
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    project = projects.find(store, opened.project_id)
    serving = in_force(store, project) if project else None
    # Rounds that fail save heads too: however many, what answers now stays.
    needed = store.data_dir / serving.head if serving and serving.head else None
    for old in sorted(folder.glob("*.safetensors"))[:-KEPT_HEADS]:
        if old != needed:
            old.unlink(missing_ok=True)
    return path


def load_head(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata that `save_head` wrote."""
    with safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
