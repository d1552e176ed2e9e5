"""What a head said of the control tasks before they were answered, compared with the answers."""

from __future__ import annotations

from typing import Any

from backend.store import Store, control_sample, projects, rounds, tasks
from backend.store.tables import Round


def published(
    store: Store, number: int, predicted: dict[int, list[str]], *, schema: str = "now", **options: Any
) -> Round:
    """A round that drew these control tasks; its queue is in force."""
    opened = drawn(store, number, predicted, schema=schema, **options)
    rounds.put_in_force(store, opened)
    return opened


def drawn(
    store: Store, number: int, predicted: dict[int, list[str]], *, schema: str = "now", **options: Any
) -> Round:
    projects.remember(store, 1, state="attached", schema_hash="now")
    opened = rounds.start(
        store, 1, number=number, version=f"v{number}-auto", trigger="", strategy="auto", options=options, seed=0
    )
    rounds.reach(store, opened.id, "saved", schema_hash=schema, counts={"labels": 10 * number})
    control_sample.note(store, opened, predicted)
    return opened


def label(store: Store, *answered: tuple[int, str, list[str]]) -> None:
    tasks.remember(store, 1, [tasks.Inputs(n, "", f"text {n}") for n in range(1, 9)])
    tasks.label(store, 1, [tasks.Labelling(*one) for one in answered])


def found(store: Store) -> list[tuple[int, int, int, int]]:
    """(round, labels of its head, answers, right ones)."""
    by_round = control_sample.by_round(store, projects.get(store, 1))
    return [(one.number, one.labels, one.answers, one.right) for one in by_round]


def test_each_answer_is_compared_with_what_the_head_of_its_round_had_said(store: Store) -> None:
    label(store)
    published(store, 2, {1: ["a"], 2: ["a"]})
    label(store, (1, "label", ["a"]), (2, "label", ["b"]))
    published(store, 3, {3: ["b"], 4: ["b"]}, prelabel=True)
    label(store, (3, "label", ["b"]))
    assert found(store) == [(2, 20, 2, 1), (3, 30, 1, 1)]
    assert [one.prefilled for one in control_sample.by_round(store, projects.get(store, 1))] == [False, True]


def test_a_corrected_answer_counts_as_it_is_now(store: Store) -> None:
    published(store, 2, {1: ["a"]})
    label(store, (1, "label", ["b"]))
    assert found(store) == [(2, 20, 1, 0)]
    label(store, (1, "label", ["a"]))
    assert found(store) == [(2, 20, 1, 1)]


def test_what_still_waited_when_the_next_queue_came_never_counts(store: Store) -> None:
    label(store)
    published(store, 2, {1: ["a"], 2: ["a"], 3: ["a"]})
    label(store, (1, "label", ["a"]), (3, "skipped", []))
    published(store, 3, {})
    label(store, (2, "label", ["b"]), (3, "label", ["b"]))
    assert found(store) == [(2, 20, 1, 1)]


def test_an_undecided_answer_counts_once_it_is_settled(store: Store) -> None:
    label(store)
    published(store, 2, {1: ["a"]})
    label(store, (1, "tie", []))
    published(store, 3, {})
    assert found(store) == []
    label(store, (1, "label", ["a"]))
    assert found(store) == [(2, 20, 1, 1)]


def test_skipped_unreadable_and_deleted_tasks_do_not_count(store: Store) -> None:
    published(store, 2, {1: ["a"], 2: ["a"], 3: ["a"]})
    label(store, (1, "skipped", []), (2, "unreadable", []), (3, "label", ["a"]))
    tasks.drop(store, 1, [3])
    assert found(store) == []


def test_several_labels_are_right_when_all_are_in_any_order_and_none_is_an_answer(store: Store) -> None:
    published(store, 2, {1: ["b", "a"], 2: ["a"], 3: []})
    label(store, (1, "label", ["a", "b"]), (2, "label", ["a", "b"]), (3, "label", []))
    assert found(store) == [(2, 20, 3, 2)]


def test_answers_under_another_label_config_are_left_out(store: Store) -> None:
    published(store, 2, {1: ["a"]}, schema="before")
    label(store, (1, "label", ["a"]))
    published(store, 3, {2: ["a"]})
    label(store, (2, "label", ["a"]))
    assert found(store) == [(3, 30, 1, 1)]


def test_a_round_whose_queue_never_came_into_force_does_not_count(store: Store) -> None:
    label(store)
    published(store, 2, {1: ["a"]})
    drawn(store, 3, {2: ["a"]})
    label(store, (1, "label", ["a"]), (2, "label", ["a"]))
    assert found(store) == [(2, 20, 1, 1)]
