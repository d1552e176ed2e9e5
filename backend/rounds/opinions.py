"""Another opinion on tasks whose annotators disagree: Label Studio is asked to give them to one more annotator.

In a project with an overlap of 2 or more it serves the tasks with most answers first, so these come before others.
"""

from __future__ import annotations

import logging

from backend.rounds.services import Services, options_of
from backend.store import answers, projects

log = logging.getLogger(__name__)

LEAST_OVERLAP = 2


def ask_opinions(services: Services, project_id: int) -> int:
    """Have each undecided task given to one more annotator while it has fewer answers than the project allows.

    Label Studio counts a task as done once it has as many annotators as its overlap; where it is done and still
    undecided, the overlap is raised by one. A task that is not done yet is served again anyway. Tasks for one
    annotator are left alone: once a single task has an overlap above 1, a change of the project's reaches no other.

    Returns
    -------
    int
        How many tasks were put forward.
    """
    store = services.store
    most = options_of(projects.get(store, project_id)).opinions
    if most == 0:
        return 0
    waiting = {
        task_id: found
        for task_id, found in answers.undecided(store, project_id).items()
        if found.annotators < most and found.asked <= found.annotators
    }
    raised = 0
    for task_id, overlap in services.label_studio.overlaps(project_id, waiting).items():
        wanted = waiting[task_id].annotators + 1
        if overlap < LEAST_OVERLAP:
            continue
        if overlap < wanted:
            if not waiting[task_id].before:
                # Noted first: a crash in between must not make us take our own overlap for the original one.
                answers.note_overlap(store, project_id, [task_id], before=overlap)
            services.label_studio.set_overlap(task_id, wanted, done=False)
            raised += 1
        answers.note_overlap(store, project_id, [task_id], asked=max(overlap, wanted))
    if raised:
        log.info("project %s: another opinion asked for on %d tasks", project_id, raised)
    return raised


def opinions_waiting(services: Services, project_id: int) -> list[int]:
    """Undecided tasks for which another opinion was asked and has not come."""
    undecided = answers.undecided(services.store, project_id)
    return [task_id for task_id, found in undecided.items() if found.asked > found.annotators]


def withdraw_opinions(services: Services, project_id: int) -> None:
    """Give raised overlaps back, where nobody changed them since; for a project that is being detached."""
    store, client = services.store, services.label_studio
    raised = answers.raised_overlaps(store, project_id)
    for task_id, overlap in client.overlaps(project_id, raised).items():
        asked, before = raised[task_id]
        if overlap == asked:
            # It was done when we raised it, and its former overlap asks for no more than the answers it had then.
            client.set_overlap(task_id, before, done=True)
    answers.note_overlap(store, project_id, raised, asked=0, before=0)
