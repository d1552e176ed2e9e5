"""Two unpaired pools become pairs through a real Label Studio."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from backend.labelstudio.local_server import LocalLabelStudio
from backend.labelstudio.pair_tasks import NONE, UNSURE
from backend.rounds.connecting import set_options
from backend.store import catalogue, projects
from backend.strategies import strategy_names
from tests.live.backend_process import wait_for
from tests.live.conftest import REPOSITORY
from tests.live.pairing_loop import PairingLoop, pools
from tests.pair_form import answer_regions

pytestmark = pytest.mark.live

OPTIONS = {"batch_size": 6, "poll_seconds": 1, "refresh_share": 1.0, "audit_share": 0.2}


def config(template: str) -> str:
    return (REPOSITORY / "tasks_templates" / template / "config.xml").read_text()


@pytest.mark.parametrize("template", ["image_text_pairing", "image_to_captions", "caption_to_images"])
def test_three_rounds_of_questions_are_asked_answered_and_learnt(
    label_studio: LocalLabelStudio, tmp_path: Path, template: str
) -> None:
    with PairingLoop(label_studio, tmp_path, config(template), items=40, options=OPTIONS) as loop:
        version, asked = "", set()
        for number in range(3):
            version = loop.wait_for_version(after=version)
            for _ in range(6):
                served = loop.answer_next()
                assert served.data["query_modality"] in loop.schema.directions
                assert served.data["al_reason"].startswith("Why now:")
                assert served.data["query_id"] not in asked
                asked.add(served.data["query_id"])
            loop.wait_for_answers(6 * (number + 1))
        assert all(image.partition(":")[2] == text.partition(":")[2] for image, text in loop.pairs())
        assert loop.pairs()
        keys = [q.key for q in loop.questions() if q.task_id]
        assert len(keys) == len(set(keys)) == len({q.task_id for q in loop.questions() if q.task_id})


def test_every_kind_of_answer_is_read_and_changes_of_mind_too(label_studio: LocalLabelStudio, tmp_path: Path) -> None:
    options = {**OPTIONS, "audit_share": 0.0, "batch_size": 5}
    with PairingLoop(label_studio, tmp_path, config("image_to_captions"), items=20, options=options) as loop:
        version = loop.wait_for_version()
        served = []

        def answer(choice: str | None, written: str | None = None) -> int:
            task = loop.next_question()
            served.append(task)
            if choice is None:
                loop.client.skip(task.id)
                return 0
            return int(loop.answer(task, choice, written=written)["id"])

        def kind(place: int) -> str:
            [found] = [q for q in loop.questions() if q.task_id == served[place].id]
            return found.answer

        first = loop.next_question().data["candidate_ids"][0]
        picked = answer(first)
        answer(NONE, "a caption nobody had")
        answer(UNSURE)
        answer(None)
        last = answer(NONE)
        # The batch is answered but for the skipped task, which asks nothing more.
        loop.wait_for_answers(5)
        assert [kind(n) for n in range(5)] == ["pick", "written", "unsure", "skipped", "none"]
        image = served[0].data["query_id"]
        assert (image, first) in loop.pairs()
        assert {pair[0] for pair in loop.pairs()} == {image, served[1].data["query_id"]}

        version = loop.wait_for_version(after=version)
        # "Cannot tell" and "none of these" rest in the following round.
        asked_now = {q.item for q in loop.questions() if q.round_number > 1}
        resting = {q.item for q in loop.questions() if q.answer in ("unsure", "none")}
        assert asked_now and not asked_now & resting

        other = next(c for c in served[0].data["candidate_ids"] if c != first)
        loop.client.update_annotation(picked, result=answer_regions(loop.schema, other))
        wait_for("the changed answer", lambda: (image, other) in loop.pairs())
        assert (image, first) not in loop.pairs()
        loop.client.delete_annotation(picked)
        wait_for("the deleted answer", lambda: kind(0) == "open")
        assert image not in {pair[0] for pair in loop.pairs()}
        loop.client.update_annotation(last, result=answer_regions(loop.schema, served[4].data["candidate_ids"][0]))
        wait_for("none that became a pick", lambda: kind(4) == "pick")


def test_two_claims_on_one_caption_become_a_question_and_its_answer_settles_it(
    label_studio: LocalLabelStudio, tmp_path: Path
) -> None:
    options = {**OPTIONS, "audit_share": 0.0, "batch_size": 4, "strategy": "pair_random"}
    options["strategy_options"] = {"directions": "image"}
    with PairingLoop(label_studio, tmp_path, config("image_text_pairing"), items=8, options=options) as loop:
        version = loop.wait_for_version()
        # The one with the later key is answered first: what decides is the time, and not how the keys are ordered.
        tasks = loop.client.tasks_by_id(loop.project_id, [q.task_id for q in loop.questions()]).values()
        two, one = sorted(tasks, key=lambda task: task.data["query_key"])[:2]
        contested = one.data["candidate_ids"][0]
        for task in (one, two):
            assert contested in task.data["candidate_ids"]
            loop.client.create_annotation(task.id, answer_regions(loop.schema, contested))
        for _ in range(2):
            loop.answer(loop.next_question(), UNSURE)
        loop.wait_for_version(after=version)
        asked = loop.next_question()
        assert asked.data["purpose"] == "conflict"
        assert asked.data["query_id"] == contested
        assert set(asked.data["candidate_ids"]) == {one.data["query_id"], two.data["query_id"]}
        assert "contradict" in asked.data["al_reason"]
        assert (one.data["query_id"], contested) in loop.pairs()
        loop.answer(asked, two.data["query_id"])
        wait_for("the conflict to be settled", lambda: (two.data["query_id"], contested) in loop.pairs())
        assert (one.data["query_id"], contested) not in loop.pairs()


def test_several_counterparts_of_one_question_become_several_pairs(
    label_studio: LocalLabelStudio, tmp_path: Path
) -> None:
    # Drawings n, n + 25 and n + 50 have the same colours, and so have their texts.
    with PairingLoop(label_studio, tmp_path, config("many_to_many_pairing"), items=60, options=OPTIONS) as loop:
        assert loop.project.options["one_to_one"] is False
        version, several, number = "", [], 0
        # Which candidates are shown differs with the number of the project: more rounds until one has several.
        while number < 3 or (not several and number < 9):
            version = loop.wait_for_version(after=version)
            for _ in range(6):
                served = loop.next_question()
                alike = int(served.data["query_id"].partition(":")[2]) % 25
                right = [c for c in served.data["candidate_ids"] if int(c.partition(":")[2]) % 25 == alike]
                made = loop.answer(served, *(right or [NONE]))
                several += [(made, served, right)] if len(right) > 1 else []
            number += 1
            loop.wait_for_answers(6 * number)
        assert several
        assert all(int(i.partition(":")[2]) % 25 == int(t.partition(":")[2]) % 25 for i, t in loop.pairs())
        made, served, right = several[0]
        asked = served.data["query_id"]

        def mine() -> set[str]:
            return {other for pair in loop.pairs() if asked in pair for other in pair if other != asked}

        assert set(right) <= mine()
        loop.client.update_annotation(made["id"], result=answer_regions(loop.schema, right[0]))
        wait_for("the answer with fewer ticks", lambda: right[1] not in mine() and right[0] in mine())


def test_a_question_answered_while_a_round_withdraws_it_keeps_its_answer(
    label_studio: LocalLabelStudio, tmp_path: Path
) -> None:
    options = {**OPTIONS, "audit_share": 0.5, "batch_size": 20, "strategy": "pair_random"}
    with PairingLoop(label_studio, tmp_path, config("image_text_pairing"), items=10, options=options) as loop:
        version = loop.wait_for_version()
        # Once one of a couple is answered with the other, the question about the other is needed no more.
        asked, couples = {q.item: q for q in loop.questions()}, []
        while len(couples) < 2:
            couples.append(next((q, asked[c]) for q in asked.values() for c in q.candidates if c in asked))
            for question in couples[-1]:
                del asked[question.item]
        names = catalogue.items(loop.services.store, loop.project_id, [idle.item for _, idle in couples])
        for answered, idle in couples:
            regions = answer_regions(loop.schema, names[idle.item].item_id)
            loop.client.create_annotation(answered.task_id, regions)
        loop.wait_for_answers(2)
        overtaken, withdrawn = (idle.task_id for _, idle in couples)
        loop.backend.stop("worker")
        loop.backend.environment["MMAL_HOLD_AT"] = "fitted"
        loop.backend.start("worker")
        projects.request_round(loop.services.store, loop.project_id, "the test")
        wait_for("the round to have read the answers", lambda: (loop.backend.data_dir / "held").exists())
        loop.client.create_annotation(overtaken, answer_regions(loop.schema, UNSURE))
        (loop.backend.data_dir / "held").unlink()
        loop.wait_for_version(after=version)
        left = loop.client.tasks_with_annotations(loop.project_id, [overtaken, withdrawn])
        assert {task_id: len(task.annotations or ()) for task_id, task in left.items()} == {overtaken: 1}

        def kinds() -> dict[int, str]:
            return {q.task_id: q.answer for q in loop.questions() if q.task_id in (overtaken, withdrawn)}

        wait_for("the late answer", lambda: kinds() == {overtaken: "unsure", withdrawn: "withdrawn"})


@pytest.mark.parametrize("point", ["selected", "made", "asked", "imported", "switched"])
def test_killed_at_any_point_no_question_is_lost_or_asked_twice(
    label_studio: LocalLabelStudio, tmp_path: Path, point: str
) -> None:
    with PairingLoop(label_studio, tmp_path, config("image_text_pairing"), items=30, options=OPTIONS) as loop:
        version = loop.wait_for_version()
        loop.backend.stop("worker")
        loop.backend.environment["MMAL_HOLD_AT"] = point
        loop.backend.start("worker")
        for _ in range(6):
            loop.answer_next()
        wait_for(f"the worker to stand at {point!r}", lambda: (loop.backend.data_dir / "held").exists())
        loop.backend.kill9()
        (loop.backend.data_dir / "held").unlink()
        loop.backend.environment["MMAL_HOLD_AT"] = ""
        loop.backend.start()
        loop.wait_for_version(after=version)
        tasks = loop.client.tasks_by_id(loop.project_id, loop.client.task_ids(loop.project_id)).values()
        keys = [task.data["query_key"] for task in tasks]
        assert len(keys) == len(set(keys)) == 12
        items = [task.data["query_id"] for task in tasks]
        assert len(items) == len(set(items))
        assert {q.key for q in loop.questions()} == set(keys)


def test_every_pair_strategy_asks_a_batch(label_studio: LocalLabelStudio, tmp_path: Path) -> None:
    options = {**OPTIONS, "batch_size": 3}
    with PairingLoop(label_studio, tmp_path, config("image_text_pairing"), items=40, options=options) as loop:
        version = loop.wait_for_version()
        for name in strategy_names(pairs=True):
            for _ in range(3):
                loop.answer_next()
            if name != loop.project.options["strategy"]:
                set_options(loop.services, loop.project_id, {"strategy": name}, "the test")
            version = loop.wait_for_version(after=version)
            wait_for(f"a batch by {name}", lambda: loop.project.version.endswith(f"-{name}"))  # noqa: B023
            number = loop.project.round_number
            assert len([q for q in loop.questions() if q.round_number == number and q.task_id]) == 3


def test_imported_items_fill_the_pools_and_their_tasks_go(label_studio: LocalLabelStudio, tmp_path: Path) -> None:
    with PairingLoop(label_studio, tmp_path, config("image_text_pairing"), items=0, options=OPTIONS) as loop:
        images, texts = pools(12)
        loop.client.import_tasks(
            loop.project_id,
            [{"id": i["id"], "image": i["image"], "text": "", "candidates": []} for i in images]
            + [{"id": t["id"], "image": "", "text": t["text"], "candidates": []} for t in texts],
        )
        loop.wait_for_version()
        for _ in range(6):
            loop.answer_next()
        loop.wait_for_answers(6)
        assert all("query_key" in s.data for s in loop.client.iter_tasks(loop.project_id))


def test_a_project_that_turns_to_pairs_keeps_its_tasks_and_gets_a_strategy_that_can_ask(
    label_studio: LocalLabelStudio, tmp_path: Path
) -> None:
    classes = config("image_text_alignment")
    with PairingLoop(label_studio, tmp_path, classes, items=0, options={"poll_seconds": 1, "batch_size": 4}) as loop:
        images, texts = pools(12)
        ids = loop.client.import_tasks(
            loop.project_id, [{**image, "text": text["text"]} for image, text in zip(images, texts, strict=True)]
        )
        version = loop.wait_for_version()
        loop.client.update_project(loop.project_id, label_config=config("image_text_pairing"))
        wait_for("the other kind of strategy", lambda: loop.project.options["strategy"] == "pair_likely")
        loop.add(*pools(12))
        loop.wait_for_version(after=version)
        assert set(ids) <= loop.client.task_ids(loop.project_id)
        assert len([q for q in loop.questions() if q.task_id]) == 4


def test_a_stream_asks_whenever_its_buffer_is_full(label_studio: LocalLabelStudio, tmp_path: Path) -> None:
    options = {**OPTIONS, "batch_size": 4, "audit_share": 0.0, "stream_buffer": 20, "stream_keep": 4}
    with PairingLoop(label_studio, tmp_path, config("image_text_pairing"), items=0, options=options) as loop:
        loop.add(*pools(8), command="stream push")
        wait_for("the items to be embedded", lambda: _states(loop) == {"buffer": 16})
        assert loop.project.version == ""
        loop.add(*pools(2, first=8), command="stream push")
        version = loop.wait_for_version()
        assert _states(loop) == {"buffer": 4, "dropped": 16}
        for _ in range(4):
            loop.answer_next()
        loop.wait_for_answers(4)
        assert loop.pairs()
        loop.add(*pools(10, first=10), command="stream push")
        loop.wait_for_version(after=version)
        asked = [q for q in loop.questions() if q.round_number > 1]
        assert len(asked) == 4
        # What arrived beyond the buffer waits for the next one.
        assert _states(loop)["buffer"] == 4 + 4


def test_a_stream_by_item_judges_every_kind_as_it_arrives(label_studio: LocalLabelStudio, tmp_path: Path) -> None:
    options = {**OPTIONS, "audit_share": 0.0, "stream_mode": "item", "stream_rate": 0.5, "stream_buffer": 20}
    with PairingLoop(label_studio, tmp_path, config("image_text_pairing"), items=0, options=options) as loop:
        loop.add(*pools(8), command="stream push")
        version = loop.wait_for_version()
        wait_for("all that arrived to be judged", lambda: _states(loop) == {"judged": 16})
        first = loop.questions()
        # Half of the arrivals, but for chance; nobody has to wait for a full buffer.
        assert 1 <= len(first) <= 15
        for _ in first:
            loop.answer_next()
        loop.wait_for_answers(len(first))
        loop.backend.kill9()
        loop.backend.start()
        loop.add(*pools(12, first=8), command="stream push")
        loop.wait_for_version(after=version)
        wait_for(
            "the newcomers to be judged", lambda: "buffer" not in _states(loop) and sum(_states(loop).values()) == 40
        )
        later = loop.questions()[len(first) :]
        assert later and not {q.item for q in later} & {q.item for q in first}
        # The latest twenty stay candidates, beside what is paired.
        paired = len({item for pair in loop.pairs() for item in pair})
        assert _states(loop)["judged"] <= 20 + paired and _states(loop)["dropped"] >= 20 - paired


def _states(loop: PairingLoop) -> dict[str, int]:
    held = catalogue.held(loop.services.store, loop.project_id, loop.services.encoder_id)
    found: Counter[str] = Counter()
    for (_, state), there in held.items():
        found[state] += there.embedded
    return dict(found)
