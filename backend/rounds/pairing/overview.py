"""The state of a pairing project: items, questions, pairs, contradictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from backend.rounds.pairing.choosing import MOST_CANDIDATES, candidates_shown, truth_ranks
from backend.rounds.pairing.round import settled_pairs
from backend.rounds.services import Services, options_of
from backend.store import catalogue, pair_queries, projects


def overview(services: Services, project_id: int) -> dict[str, Any]:
    """Counts of items by modality and state, questions by answer, pairs, conflicts, and how good suggestions are.

    found_first, found: share of the answered control questions whose counterpart was the model's first guess, and
    among the candidates; only they hold for the pools. found_own: the latter of the questions the strategy chose.
    """
    project = projects.get(services.store, project_id)
    options = options_of(project)
    asked = pair_queries.every(services.store, project_id)
    settled = settled_pairs(services, project_id, asked, project.round_number + 1, options)
    control, own = truth_ranks(asked, audit=True), truth_ranks(asked, audit=False)
    return {
        "items": catalogue.counts(services.store, project_id, services.encoder_id),
        "questions": dict(Counter(q.answer for q in asked)),
        "pairs": len(settled.pairs),
        "conflicts": [
            {"tasks": [claim.question.task_id for claim in c.claims], "item": _name(services, project_id, c.item)}
            for c in settled.conflicts
        ],
        "candidates_shown": candidates_shown(asked, options),
        "control_questions": len(control),
        "found_first": _share(control, 1),
        "found": _share(control, MOST_CANDIDATES),
        "found_own": _share(own, MOST_CANDIDATES),
        "unreadable": [f"{name}: {problem}" for name, problem in catalogue.problems(services.store, project_id)],
    }


def overview_lines(found: dict[str, Any]) -> list[str]:
    """The overview in lines a person reads."""
    lines = [
        f"{modality:6s} " + ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        for modality, counts in sorted(found["items"].items())
    ]
    lines.append(f"pairs  {found['pairs']}, {len(found['conflicts'])} conflicts")
    lines.append(
        "asked  " + (", ".join(f"{n} {kind}" for kind, n in sorted(found["questions"].items())) or "nothing")
    )
    if found["control_questions"]:
        lines.append(
            f"of {found['control_questions']} control questions the counterpart was the first guess in"
            f" {found['found_first']:.0%} and among the candidates in {found['found']:.0%}"
            + (f"; of those the strategy chose in {found['found_own']:.0%}" if found["found_own"] is not None else "")
        )
    lines += [f"CONFLICT {c['item']}: tasks {', '.join(map(str, c['tasks']))}" for c in found["conflicts"]]
    return lines + [f"UNREADABLE {line}" for line in found["unreadable"]]


def pair_rows(services: Services, project_id: int) -> Iterator[dict[str, Any]]:
    """The pairs in the order they were answered."""
    project = projects.get(services.store, project_id)
    asked = pair_queries.every(services.store, project_id)
    settled = settled_pairs(services, project_id, asked, project.round_number + 1, options_of(project))
    items = catalogue.items(services.store, project_id, settled.paired)
    task_of = {q.key: q.task_id for q in asked}
    for (image, text), key in settled.pairs.items():
        yield {
            "image": items[image].item_id,
            "text": items[text].item_id,
            "text_content": items[text].content,
            "task": task_of[key],
        }


def _share(ranks: Sequence[float], most: int) -> float | None:
    return sum(rank <= most for rank in ranks) / len(ranks) if ranks else None


def _name(services: Services, project_id: int, number: int) -> str:
    found = catalogue.items(services.store, project_id, [number])
    return found[number].item_id if number in found else str(number)
