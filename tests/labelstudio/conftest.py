"""Servers on loopback for whoever fetches something."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.labelstudio.loopback_site import Site, serving


@pytest.fixture
def start_site() -> Iterator[Callable[[], Site]]:
    with ExitStack() as running:
        yield lambda: running.enter_context(serving())
