"""The buffer of a stream as a round asks about it, and as a float64 brute-force reference does (unaligned.md 3)."""

from __future__ import annotations

import numpy as np

from backend.learners.projection import ProjectionHead
from backend.rounds.options import ProjectOptions
from backend.rounds.pairing.choosing import PairingArrays, choose_questions, pools
from backend.rounds.pairing.settling import settle
from backend.store.tables import PairQueryRow
from backend.strategies import create_strategy
from backend.strategies.pairing import MODALITIES
from tests.rounds.test_questions import BOTH, FIRST_TEXT, answered, choose
from tests.rounds.test_questions import pools as some_pools
from tests.strategies.pairing.test_golden_pairing import answers, load


def test_a_stream_asks_about_its_oldest_items_and_keeps_the_farthest() -> None:
    arrays = some_pools(20, state="buffer")
    buffer = arrays.buffered(10, settle([], {}, 1))
    assert sum(len(numbers) for numbers in buffer.numbers.values()) == 10
    assert buffer.numbers["image"].tolist() == list(range(10))
    both = some_pools(10, state="buffer")
    choice = choose(both, [], count=4, stream_buffer=20, stream_keep=3, audit_share=0.0)
    assert len(choice.kept) == 3
    assert not choice.kept & {q.item for q in choice.questions}


def test_pairs_of_earlier_buffers_are_never_offered_again_with_many_to_many_either() -> None:
    arrays = some_pools(20)
    states = {m: np.array(["dropped"] * 5 + ["buffer"] * 15) for m in BOTH}
    arrays = PairingArrays(arrays.numbers, arrays.features, states)
    known = [answered(n, FIRST_TEXT + n) for n in range(5)]
    for one_to_one in (True, False):
        choice = choose(arrays, known, count=15, stream_buffer=30, one_to_one=one_to_one, audit_share=0.0)
        named = {n for q in choice.questions for n in (q.item, *q.candidates)}
        assert named and not named & {*range(5), *range(FIRST_TEXT, FIRST_TEXT + 5)}


class GoldenStream:
    """Four buffers that arrive one after the other, each dropped once it was asked about; numbers in the order of
    arrival."""

    def __init__(self) -> None:
        self.golden = g = load("stream")
        self.rows = {"image": [g["mem_img"], *g["img"]], "text": [g["mem_txt"], *g["txt"]]}
        pairs = range(len(g["mem_img"]))
        self.asked: list[PairQueryRow] = [answered(1 + n, FIRST_TEXT + n) for n in pairs]

    def first_row(self, number: int) -> int:
        return sum(len(rows) for rows in self.rows["image"][: number + 1])

    def arrays(self, number: int) -> PairingArrays:
        """What is known once buffer ``number`` is full."""
        before, size = self.first_row(number), len(self.rows["image"][number + 1])
        features = {m: np.concatenate(self.rows[m][: number + 2]) for m in MODALITIES}
        first = {"image": 1, "text": FIRST_TEXT}
        states = np.array(["dropped"] * before + ["buffer"] * size)
        return PairingArrays(
            {m: first[m] + np.arange(before + size) for m in MODALITIES}, features, dict.fromkeys(MODALITIES, states)
        )

    def answer(self, number: int, items: list[int]) -> list[int]:
        """Answer with the truth; tells the rows of the partners within the buffer."""
        modality = MODALITIES[int(self.golden["modality"][number])]
        first, other = (1, FIRST_TEXT) if modality == "image" else (FIRST_TEXT, 1)
        rows = np.array(items) - first - self.first_row(number)
        partners = answers(rows, self.golden["pair_of_txt"][number], modality)
        self.asked += [
            answered(item, int(other + self.first_row(number) + partner), key=f"{number}/{item}")
            for item, partner in zip(items, partners, strict=True)
        ]
        return [int(partner) for partner in partners]


def test_four_buffers_of_a_stream_are_asked_about_as_by_the_reference() -> None:
    stream, g = GoldenStream(), load("stream")
    options = ProjectOptions(
        strategy="three_step", strategy_options={"core_size": int(g["BC"])}, stream_buffer=60, audit_share=0.0
    )
    head = ProjectionHead.identity(8)
    for number in range(4):
        settled = settle(stream.asked, {}, 100)
        assert not settled.conflicts
        arrays = stream.arrays(number).buffered(60, settled)
        choice = choose_questions(arrays, head, settled, stream.asked, options, MODALITIES, int(g["B"]), 0)
        modality = MODALITIES[int(g["modality"][number])]
        assert {q.modality for q in choice.questions} == {modality}
        first = stream.first_row(number) + (1 if modality == "image" else FIRST_TEXT)
        items = [q.item for q in choice.questions]
        np.testing.assert_array_equal(np.array(items) - first, g["picks"][number])
        joint = {m: head.embed(m, arrays.features[m]) for m in MODALITIES}
        strategy = create_strategy("three_step", core_size=int(g["BC"]))
        found = strategy.select(pools(arrays, joint, settled, stream.asked, options), 4, np.random.default_rng(0))
        np.testing.assert_array_equal(arrays.numbers[modality][found.parts["coreset"]] - first, g["coreset"][number])
        assert stream.answer(number, items) == g["partner"][number].tolist()
