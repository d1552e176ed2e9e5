"""From the annotations of a pairing task to one answer."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from backend.errors import PairTaskInvalid
from backend.labelstudio.annotations import read_answer, resolve_label
from backend.labelstudio.pair_answers import PairAnswer, is_query, read_pair_answer, read_query
from backend.labelstudio.pair_tasks import NONE, UNSURE, PairItem, query_task, thumbnail
from backend.labelstudio.schema import TaskSchema
from backend.labelstudio.task_templates import TaskTemplate
from tests.pair_form import answer_regions

FOLDER = Path(__file__).parents[2] / "tasks_templates"
FIXTURES = Path(__file__).parents[1] / "fixtures" / "label_studio_1.23.2"


def small_picture() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "PNG")
    return thumbnail(buffer.getvalue())


SCHEMA = TaskTemplate.load(FOLDER / "image_text_pairing").schema(())
TASK = query_task(
    SCHEMA,
    modality="image",
    query=PairItem("i7", "/data/7.png"),
    candidates=[PairItem(f"t{n}", f"caption {n}") for n in (4, 2, 9)],
    similarities=[0.8, 0.7, 0.1],
    model_version="v2",
    round_number=2,
)
TEXT_TASK = query_task(
    SCHEMA,
    modality="text",
    query=PairItem("t7", "words"),
    candidates=[PairItem("i1", small_picture()), PairItem("i2", small_picture())],
    similarities=[0.8, 0.7],
    model_version="v2",
    round_number=2,
)


def annotation(choice: str | None, written: str | None = None, *, by: int | None = 1, minute: int = 0, **fields: Any):  # type: ignore[no-untyped-def]
    result = [] if choice is None else answer_regions(SCHEMA, choice, written=written)
    return {
        "id": (by or 0) * 100 + minute,
        "completed_by": by,
        "updated_at": f"2026-11-22T03:{minute:02d}:00Z",
        "result": result,
        **fields,
    }


def skip(by: int, minute: int = 0) -> dict[str, Any]:
    return annotation(None, by=by, minute=minute, was_cancelled=True)


def read(*annotations: dict[str, Any], task: dict[str, Any] = TASK) -> PairAnswer:
    return read_pair_answer(SCHEMA, task, annotations)


def one(partners: tuple[str, ...]) -> str | None:
    assert len(partners) < 2
    return partners[0] if partners else None


def essence(answer: PairAnswer) -> tuple[Any, ...]:
    return answer.kind, one(answer.partner_ids), answer.text, answer.annotators


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ([], ("open", None, None, ())),
        ([annotation("t2")], ("pick", "t2", None, (1,))),
        ([annotation(NONE)], ("none", None, None, (1,))),
        ([annotation(NONE, "  a dog\n")], ("written", None, "a dog", (1,))),
        ([annotation(NONE, "   ")], ("none", None, None, (1,))),
        ([annotation(UNSURE)], ("unsure", None, None, (1,))),
        ([skip(1)], ("skipped", None, None, ())),
        ([skip(1), annotation("t4", by=2)], ("pick", "t4", None, (2,))),
        ([annotation("t2"), annotation("t4", minute=5)], ("pick", "t4", None, (1,))),
        ([annotation("t2"), annotation("t4", by=2)], ("tie", None, None, ())),
        ([annotation("t2"), annotation("t4", by=2), annotation("t2", by=3)], ("pick", "t2", None, (1, 3))),
        ([annotation("t2"), annotation(UNSURE, by=2)], ("tie", None, None, ())),
        (
            [annotation(NONE, "one"), annotation(NONE, by=2, minute=9), annotation("t4", by=3)],
            ("written", None, "one", (1, 2)),
        ),
        (
            [annotation(NONE, "early"), annotation(NONE, "late", by=2, minute=9)],
            ("written", None, "late", (1, 2)),
        ),
        # What the same annotator wrote before is what they no longer say.
        ([annotation(NONE, "old"), annotation(NONE, minute=9)], ("none", None, None, (1,))),
        # A text beside a pick was left over in the box.
        ([annotation("t2", "left over")], ("pick", "t2", None, (1,))),
        ([annotation("t2"), annotation("t4", by=2, ground_truth=True)], ("pick", "t4", None, (2,))),
        ([annotation("t2", by=None)], ("pick", "t2", None, ())),
    ],
)
def test_what_annotators_did_is_one_answer(annotations: list[dict[str, Any]], expected: tuple[Any, ...]) -> None:
    assert essence(read(*annotations)) == expected


def test_rank_is_the_place_among_the_models_guesses_and_not_on_the_screen() -> None:
    assert [read(annotation(item)).rank for item in ("t4", "t2", "t9")] == [0, 1, 2]
    assert read(annotation(NONE)).rank is None


def test_ground_truth_is_told_apart() -> None:
    assert read(annotation("t2", ground_truth=True)).from_ground_truth
    assert not read(annotation("t2")).from_ground_truth


def test_a_text_query_has_no_written_answer() -> None:
    assert essence(read(annotation(NONE, "a picture of it"), task=TEXT_TASK)) == ("none", None, None, (1,))
    assert essence(read(annotation("i2"), task=TEXT_TASK)) == ("pick", "i2", None, (1,))


@pytest.mark.parametrize(
    ("strange", "said"),
    [
        (annotation("t5"), "'t5', which is not among the task's candidates"),
        (annotation(None), "no answer"),
        ({**annotation(None), "result": answer_regions(SCHEMA, "t2") + answer_regions(SCHEMA, "t4")}, "2 answers"),
        ({**annotation(None), "result": [{"from_name": "match", "value": {"rating": 3}}]}, "no list of choices"),
        ({**annotation(None), "result": "text"}, "no answer"),
    ],
)
def test_what_cannot_be_read_says_why_and_leaves_the_others_their_vote(strange: dict[str, Any], said: str) -> None:
    alone = read(strange)
    assert alone.kind == "unreadable" and said in str(alone.problem)
    assert essence(read(strange, annotation("t4", by=2))) == ("pick", "t4", None, (2,))


def test_a_strange_text_box_is_no_text() -> None:
    for value in ({"text": [3]}, {"text": None}, {}, "words", {"text": []}):
        raw = annotation(NONE)
        raw["result"].append({"from_name": "written", "type": "textarea", "value": value})
        assert read(raw).kind == "none"
    raw["result"].append({"from_name": "written", "type": "textarea", "value": {"text": "one line"}})
    assert read(raw).text == "one line"


def test_pick_submitted_in_label_studio_is_read() -> None:
    entry = json.loads((FIXTURES / "annotation_c2_caption_K_images_choices_html.json").read_text())
    schema = TaskSchema.from_label_config(entry["label_config"])
    small = small_picture()
    task = query_task(
        TaskTemplate.load(FOLDER / "caption_to_images").schema(()),
        modality="text",
        query=PairItem("t1", entry["task_data"]["caption"]),
        candidates=[PairItem(option["value"], small) for option in entry["task_data"]["candidates"]],
        similarities=[0.0] * 4,
        model_version="",
        round_number=1,
    )
    found = read_pair_answer(schema, task, [entry["annotation"]])
    assert (found.kind, found.partner_ids, found.rank, found.annotators) == ("pick", ("img_2",), 2, (1,))


MANY = TaskTemplate.load(FOLDER / "many_to_many_pairing").schema(())


@pytest.mark.parametrize(
    ("ticked", "kind", "partners"),
    [
        ([["t9", "t4"]], "pick", ("t4", "t9")),
        ([["t2"]], "pick", ("t2",)),
        ([[]], "none", ()),
        ([[NONE]], "none", ()),
        ([[UNSURE]], "unsure", ()),
        ([["t4", "t2"], ["t4", "t9"], ["t4", "t9"]], "pick", ("t4", "t9")),
        ([["t4", "t2"], ["t4"]], "tie", ()),
        ([["t4"], ["t2"], ["t9"]], "tie", ()),
        ([["t4", NONE]], "unreadable", ()),
        ([["t4", UNSURE], ["t2"]], "pick", ("t2",)),
    ],
)
def test_where_several_may_be_ticked_those_that_most_ticked_are_the_counterparts(
    ticked: list[list[str]], kind: str, partners: tuple[str, ...]
) -> None:
    raw = [
        {**annotation(None, by=by), "result": answer_regions(MANY, *choices)} for by, choices in enumerate(ticked, 1)
    ]
    found = read_pair_answer(MANY, TASK, raw)
    assert (found.kind, found.partner_ids) == (kind, partners)
    assert found.rank == (("t4", "t2", "t9").index(partners[0]) if partners else None)
    if kind == "unreadable":
        assert "beside other answers" in str(found.problem)


choices = st.sampled_from(["t4", "t2", "t9", NONE, UNSURE, "t5", None])


@given(
    st.lists(st.tuples(choices, st.integers(1, 4), st.booleans(), st.booleans()), max_size=8),
    st.randoms(use_true_random=False),
)
def test_answer_is_that_of_the_votes_on_classes_in_any_order(
    made: list[tuple[str | None, int, bool, bool]], shuffle: random.Random
) -> None:
    annotations = [
        annotation(choice, by=by, minute=minute, was_cancelled=skipped, ground_truth=truth)
        for minute, (choice, by, skipped, truth) in enumerate(made)
    ]
    found = read(*annotations)
    plain = TaskSchema.from_label_config(
        '<View><Text name="t" value="$t"/><Choices name="match" toName="t">'
        + "".join(f'<Choice value="{value}"/>' for value in ("t4", "t2", "t9", NONE, UNSURE))
        + "</Choices></View>"
    )
    label = resolve_label([read_answer(plain, a) for a in annotations], multi_label=False)
    kinds = {"none": "open", "tie": "tie", "skipped": "skipped", "unreadable": "unreadable"}
    named = {NONE: "none", UNSURE: "unsure"}
    expected = named.get(label.choices[0], "pick") if label.choices else kinds[label.kind]
    assert found.kind == expected and found.from_ground_truth == label.from_ground_truth
    shuffle.shuffle(annotations)
    assert essence(read(*annotations)) == essence(found)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("query_modality", "sound"),
        ("query_modality", None),
        ("query_id", ""),
        ("query_key", 3),
        ("purpose", None),
        ("model_version", None),
        ("round", "2"),
        ("round", True),
        ("candidate_ids", []),
        ("candidate_ids", ["t4", 2, "t9"]),
        ("candidate_ids", ["t4", "t4", "t9"]),
        ("candidate_ids", ["t4", NONE, "t9"]),
        ("candidate_ids", "t4"),
        ("candidate_sims", [0.1]),
        ("candidate_sims", [0.1, float("inf"), 0.2]),
        ("candidate_sims", ["a", "b", "c"]),
    ],
)
def test_a_task_that_was_changed_is_refused_by_the_name_of_its_field(field: str, value: Any) -> None:
    with pytest.raises(PairTaskInvalid, match=f"^{field} = "):
        read_pair_answer(SCHEMA, {**TASK, field: value}, [])
    without = {name: kept for name, kept in TASK.items() if name != field}
    with pytest.raises(PairTaskInvalid, match=f"^{field} = "):
        read_query(without)


def test_tasks_of_others_are_told_from_queries() -> None:
    assert is_query(TASK) and not is_query({"image": "a.png", "text": "b"})
