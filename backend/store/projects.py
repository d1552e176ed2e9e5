"""Projects: what is in force, what is asked for."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from backend.errors import ProjectUnknown
from backend.store import pauses
from backend.store.database import Store
from backend.store.leases import is_held
from backend.store.tables import Lease, Project

LONGEST_BACKOFF = 300.0
# While Label Studio does not answer: the next look tells when it does again.
LONGEST_BACKOFF_UNANSWERED = 10.0

LOOK = "sync"
"""The job that looks at Label Studio; an error of a job begins with its name."""

LARGEST_ID = 2**31 - 1
"""What Label Studio's database counts to; no database of ours could look larger numbers up."""


def find(store: Store, project_id: int) -> Project | None:
    """The project, or None when it was never connected."""
    if not 0 < project_id <= LARGEST_ID:
        return None
    with store.reading() as session:
        return session.get(Project, project_id)


def get(store: Store, project_id: int) -> Project:
    """The project.

    Raises
    ------
    ProjectUnknown
        When it was never connected to this backend.
    """
    project = find(store, project_id)
    if project is None:
        raise ProjectUnknown(
            f"project = {project_id} is not connected to this backend. Connect it with "
            f"`mmal project attach --project {project_id}` or in Label Studio under Settings > Model."
        )
    return project


def every(store: Store, *states: str) -> list[Project]:
    """All projects, or those in one of the states."""
    with store.reading() as session:
        query = select(Project).order_by(Project.id)
        return list(session.scalars(query.where(Project.state.in_(states)) if states else query))


def remember(store: Store, project_id: int, **fields: Any) -> Project:
    """Create the project where it is new and set these fields."""
    with store.statement() as session:
        store.upsert(session, Project, [{**_defaults(), **fields, "id": project_id}], list(fields))
    return get(store, project_id)


def finish_sync(store: Store, seen: Project, fields: dict[str, Any]) -> None:
    """Set what a look at Label Studio found, its watermark among it.

    Parameters
    ----------
    seen
        The project as it was when the look began. Where another look has ended since, either may have written what
        it read earlier over what the other read later: the watermark goes back to where this look began, so that
        the next one reads all of it again.
    """
    with store.writing(seen.id) as session:
        project = session.get_one(Project, seen.id)
        if project.watermark != seen.watermark:
            fields = {**fields, "watermark": min(seen.watermark, project.watermark)}
        for name, value in fields.items():
            setattr(project, name, value)


def request_round(store: Store, project_id: int, why: str, *, at_once: bool = False) -> None:
    """Ask for a round; a request while one is running is followed by exactly one more.

    Parameters
    ----------
    at_once
        Do not wait out the pause after a failed round.
    """
    fields: dict[str, Any] = {"round_requested": why}
    if at_once:
        fields["round_not_before"] = 0.0
    with store.statement() as session:
        session.execute(update(Project).where(Project.id == project_id).values(**fields))


def request_round_if_unchanged(store: Store, seen: Project, why: str, lease: str, lease_seconds: float) -> bool:
    """Ask for a round unless one is running, or was asked for or opened since the project was read.

    Parameters
    ----------
    lease
        Name of the lease that a running round holds.
    """
    with store.writing(seen.id) as session:
        running = select(Lease.name).where(Lease.name == lease, is_held(store, lease_seconds))
        if session.execute(running).first() is not None:
            return False
        asked = session.execute(
            update(Project)
            .where(
                Project.id == seen.id,
                Project.round_requested == "",
                Project.round_number == seen.round_number,
                Project.version == seen.version,
            )
            .values(round_requested=why)
        )
        return bool(asked.rowcount)  # type: ignore[attr-defined]


def record_failure(
    store: Store,
    project_id: int,
    error: str,
    *,
    pause: bool = False,
    longest: float = LONGEST_BACKOFF,
    ask_again: str = "",
) -> None:
    """Note what went wrong.

    Parameters
    ----------
    pause
        Leave the project alone for a while, twice as long after each failure in a row.
    longest
        Seconds that such a pause has at most.
    ask_again
        Reason for which a round is asked for once more.
    """
    now = store.clock()
    with store.writing(project_id) as session:
        note_failure(session, project_id, error, now, pause=pause, longest=longest, ask_again=ask_again)


def note_failure(
    session: Session, project_id: int, error: str, now: float, *, pause: bool, longest: float, ask_again: str
) -> None:
    """As `record_failure`, inside a transaction that writes more."""
    project = session.get(Project, project_id)
    if project is None:
        return
    project.last_error, project.last_error_at = error, now
    project.round_requested = project.round_requested or ask_again
    if pause:
        project.failures += 1
        project.round_not_before = now + pauses.seconds(project.failures, longest)


def record_success(store: Store, project_id: int) -> None:
    """What was asked of the project went through: the last error is past."""
    with store.statement() as session:
        session.execute(
            update(Project)
            .where(Project.id == project_id, (Project.last_error != "") | (Project.failures != 0))
            .values(last_error="", failures=0, round_not_before=0.0)
        )


def record_look(store: Store, project_id: int) -> None:
    """A look at Label Studio went through: the error of the last one is past. What paused the project, a round that
    failed, has still to go through."""
    with store.statement() as session:
        session.execute(
            update(Project)
            .where(Project.id == project_id, Project.last_error != "")
            .where((Project.failures == 0) | Project.last_error.startswith(f"{LOOK}: "))
            .values(last_error="")
        )


def _defaults() -> dict[str, Any]:
    columns = Project.__table__.columns
    return {
        c.name: c.default.arg(None) if c.default.is_callable else c.default.arg
        for c in columns
        if c.default is not None
    }
