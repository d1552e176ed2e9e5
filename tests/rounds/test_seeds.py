"""The seed of a round: repeatable, different from round to round, and small enough for every database."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backend.rounds.pipeline import round_seed
from backend.store.projects import LARGEST_ID

numbers = st.integers(0, LARGEST_ID)


@given(project_id=numbers, number=numbers)
def test_a_seed_fits_the_integers_of_every_database_and_is_the_same_each_time(project_id: int, number: int) -> None:
    assert 0 <= round_seed(project_id, number) <= LARGEST_ID
    assert round_seed(project_id, number) == round_seed(project_id, number)


def test_rounds_and_projects_have_seeds_of_their_own() -> None:
    assert len({round_seed(project, number) for project in range(1, 6) for number in range(1, 200)}) == 5 * 199
