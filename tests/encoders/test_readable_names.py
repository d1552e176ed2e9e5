"""Label names become words before they are embedded."""

from __future__ import annotations

import pytest

from backend.encoders import readable


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("food-fruit", "food fruit"), ("food_fruit", "food fruit"), ("foodFruit", "food fruit"),
        ("Food / Fruit", "food fruit"), ("CD", "cd"), ("  two  words ", "two words"), ("-", "-"), ("äpfel", "äpfel"),
    ],
)  # fmt: skip
def test_a_label_name_is_read_as_words(name: str, words: str) -> None:
    assert readable(name) == words
