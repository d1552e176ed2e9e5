"""Annotations of a pairing task -> one answer: a partner, none, a written caption, or nothing to learn from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from backend.errors import PairTaskInvalid
from backend.labelstudio.annotations import Answer, counted_answers, read_answer, resolve_label
from backend.labelstudio.pair_tasks import NONE, UNSURE, Modality
from backend.labelstudio.schema import TaskSchema

PairAnswerKind = Literal["pick", "none", "written", "unsure", "tie", "skipped", "unreadable", "open"]


@dataclass(frozen=True)
class PairQuery:
    """What a task asks, as `pair_tasks.query_task` wrote it. Candidates are best first, not as shown."""

    modality: Modality
    item_id: str
    key: str
    purpose: str
    round_number: int
    model_version: str
    candidate_ids: tuple[str, ...]
    similarities: tuple[float, ...]


@dataclass(frozen=True)
class PairAnswer:
    """What a task teaches.

    Attributes
    ----------
    kind : "pick", "none", "written" or "unsure" are answers; "tie" stays out; "skipped" when all that was done is
        skipping; "unreadable" when nothing fits the task (`problem` says why); "open" without annotations
    partner_ids : with "pick", the candidates that belong to the item, the model's best first; one where the form
        takes one
    rank : place of the first of them among `query.candidate_ids` (0: the model's best)
    text : with "written", the caption
    annotators : whose answers decided, ascending
    from_ground_truth : it is a ground truth, whatever the annotators said
    """

    kind: PairAnswerKind
    query: PairQuery
    partner_ids: tuple[str, ...] = ()
    text: str | None = None
    annotators: tuple[int, ...] = ()
    from_ground_truth: bool = False
    rank: int | None = None
    problem: str | None = None


def is_query(data: Mapping[str, Any]) -> bool:
    """The task was made to ask for a pair; others in the same project are none of ours."""
    return "query_key" in data


def read_query(data: Mapping[str, Any]) -> PairQuery:
    """What the task asks.

    Raises
    ------
    PairTaskInvalid
        Naming the field that is missing or has a value it cannot have.
    """
    modality = _text(data, "query_modality")
    if modality not in ("image", "text"):
        raise _invalid("query_modality", modality, "'image' or 'text'")
    ids = data.get("candidate_ids")
    if not isinstance(ids, list) or not ids or not all(isinstance(each, str) and each for each in ids):
        raise _invalid("candidate_ids", ids, "a list of ids")
    if len(set(ids)) != len(ids) or {NONE, UNSURE}.intersection(ids):
        raise _invalid("candidate_ids", ids, "ids of items, each once")
    similarities = data.get("candidate_sims")
    if not isinstance(similarities, list) or len(similarities) != len(ids) or not all(map(_is_number, similarities)):
        raise _invalid("candidate_sims", similarities, f"{len(ids)} numbers, one for each of candidate_ids")
    number = data.get("round")
    if not isinstance(number, int) or isinstance(number, bool):
        raise _invalid("round", number, "a whole number")
    return PairQuery(
        modality=cast(Modality, modality),
        item_id=_text(data, "query_id"),
        key=_text(data, "query_key"),
        purpose=_text(data, "purpose"),
        round_number=number,
        model_version=_text(data, "model_version", may_be_empty=True),
        candidate_ids=tuple(ids),
        similarities=tuple(map(float, similarities)),
    )


def read_pair_answer(
    schema: TaskSchema, data: Mapping[str, Any], annotations: Iterable[Mapping[str, Any]]
) -> PairAnswer:
    """Read a task as the API gives it, all its annotations at once.

    Who has a vote, ground truth, skips and ties are those of `annotations.resolve_label`. Where "none of these"
    has the majority and somebody in it wrote a caption for the query image, the latest caption is the answer.
    What stands in the text box counts only beside "none of these": Label Studio itself drops it otherwise.
    Where several may be ticked, a candidate is a partner when more than half of the voters ticked it; nothing ticked
    is "none of these", and an exit beside anything else is unreadable.

    Raises
    ------
    PairTaskInvalid
        The task's data are not those of a query. Strange annotations never raise.
    """
    query = read_query(data)
    raw = list(annotations)
    answers = read_pair_annotations(schema, query, raw)
    found = resolve_label(answers, multi_label=schema.multi_label)
    if found.kind == "none":
        return PairAnswer("open", query)
    if found.kind == "unreadable":
        problem = next((answer.problem for answer in answers if answer.problem), None)
        return PairAnswer("unreadable", query, problem=problem)
    if found.kind != "label" or not found.choices:
        # Several annotators who ticked nothing in common agree on nothing.
        return PairAnswer("skipped" if found.kind == "skipped" else "tie", query)
    agreed = set(found.choices)
    deciding = [answer for answer in counted_answers(answers) if agreed.intersection(answer.choices or ())]
    people = tuple(sorted({answer.annotator_id for answer in deciding if answer.annotator_id is not None}))
    answer = PairAnswer("pick", query, annotators=people, from_ground_truth=found.from_ground_truth)
    if UNSURE in agreed:
        return replace(answer, kind="unsure")
    if NONE in agreed:
        text = _written_text(schema, raw, deciding) if query.modality == "image" else None
        return replace(answer, kind="none" if text is None else "written", text=text)
    partners = tuple(candidate for candidate in query.candidate_ids if candidate in agreed)
    return replace(answer, partner_ids=partners, rank=query.candidate_ids.index(partners[0]))


def read_pair_annotations(
    schema: TaskSchema, query: PairQuery, annotations: Iterable[Mapping[str, Any]]
) -> list[Answer]:
    """Each annotation of the task by itself; choices are ids of candidates, or one of the exits alone."""
    form = replace(schema, choices=(*query.candidate_ids, NONE, UNSURE))
    read = (read_answer(form, annotation) for annotation in annotations)
    return [_with_one_exit(schema.from_name, answer) if schema.multi_label else answer for answer in read]


def _with_one_exit(name: str, answer: Answer) -> Answer:
    if answer.choices is None:
        return answer
    exits = [choice for choice in answer.choices if choice in (NONE, UNSURE)]
    if exits and len(answer.choices) > 1:
        return replace(answer, choices=None, problem=f"'{name}' holds {exits[0]!r} beside other answers")
    return answer if answer.choices else replace(answer, choices=(NONE,))


def _written_text(
    schema: TaskSchema, annotations: Iterable[Mapping[str, Any]], deciding: Iterable[Answer]
) -> str | None:
    by_id = {int(annotation["id"]): annotation for annotation in annotations}
    texts = [_text_of(schema, by_id[answer.annotation_id]) for answer in deciding]
    return next((text for text in reversed(texts) if text), None)


def _text_of(schema: TaskSchema, annotation: Mapping[str, Any]) -> str:
    if schema.written is None:
        return ""
    parts: list[str] = []
    for region in annotation.get("result") or ():
        if isinstance(region, Mapping) and region.get("from_name") == schema.written:
            value = region.get("value")
            listed = value.get("text") if isinstance(value, Mapping) else None
            # A box of one line is stored as a bare string by some importers.
            parts += [listed] if isinstance(listed, str) else listed if isinstance(listed, list) else []
    return " ".join(part.strip() for part in parts if isinstance(part, str) and part.strip())


def _text(data: Mapping[str, Any], field: str, may_be_empty: bool = False) -> str:
    value = data.get(field)
    if not isinstance(value, str) or not (value or may_be_empty):
        raise _invalid(field, value, "a text")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _invalid(field: str, value: Any, expected: str) -> PairTaskInvalid:
    return PairTaskInvalid(
        f"{field} = {str(value)[:80]!r} in the task's data: expected {expected}. The task was changed after it was"
        " made, or is not one of this backend: delete it, and the next round asks again"
    )
