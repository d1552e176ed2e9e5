"""Is the project of this number still the one that was attached, or that of another Label Studio?

Asked at every look and, by each process, before anything else that is done with a project. Where it is another's,
nothing is read and nothing published.
"""

from __future__ import annotations

import logging

from backend.errors import ProjectOfAnother
from backend.labelstudio.records import ProjectInfo
from backend.rounds.services import Services
from backend.store import origins, projects
from backend.store.origins import Origin

log = logging.getLogger(__name__)


def confirm(services: Services, project_id: int) -> None:
    """Ask Label Studio, once a process.

    Raises
    ------
    ProjectOfAnother
        What was found last, until a look finds something else.
    LabelStudioError
    """
    if project_id in services.others_projects:
        raise ProjectOfAnother(services.others_projects[project_id])
    if project_id not in services.own_projects:
        compare(services, services.label_studio.project(project_id))


def compare(services: Services, info: ProjectInfo) -> None:
    """Hold what Label Studio says of a project against what is noted; note it where nothing is.

    Raises
    ------
    ProjectOfAnother
        It is noted with the project too.
    """
    store, here = services.store, origin_of(services, info)
    noted = origins.find(store, info.id)
    if noted is not None and noted.created_at != here.created_at:
        problem = _in_words(info.id, noted, here)
        services.others_projects[info.id] = problem
        services.own_projects.discard(info.id)
        if projects.get(store, info.id).problem != problem:
            projects.remember(store, info.id, problem=problem)
        raise ProjectOfAnother(problem)
    if noted != here:
        if noted is not None:
            log.info("project %s: Label Studio moved from %s to %s", info.id, noted.address, here.address)
        origins.note(store, info.id, here)
    accept(services, info.id)


def accept(services: Services, project_id: int) -> None:
    """The project is ours, as far as this process is concerned."""
    services.others_projects.pop(project_id, None)
    services.own_projects.add(project_id)


def origin_of(services: Services, info: ProjectInfo) -> Origin:
    """Where a project that was just read belongs."""
    return Origin(services.settings.label_studio_url.rstrip("/"), info.created_at.isoformat())


def _in_words(project_id: int, noted: Origin, here: Origin) -> str:
    return (
        f"Project {project_id} at {here.address} was made at {here.created_at}, and the one that was attached at"
        f" {noted.created_at}, at {noted.address}: it is another project. Nothing is read or published. Set"
        f" LABEL_STUDIO_URL back to {noted.address}, or work on {here.address} with another MMAL_DATA_DIR (or"
        f" MMAL_DATABASE_URL), or run `mmal project detach --project {project_id}`, which here only forgets the old"
        " one, and attach again"
    )
