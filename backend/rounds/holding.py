"""For fault tests: a worker that stands still at a named point of a round until it is killed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from backend.errors import ConfigurationError
from backend.rounds.pipeline import POINTS


def hold_at(point: str, data_dir: Path) -> Callable[[str], None]:
    """A callback that, at `point`, leaves a file `held` in the data folder and never returns.

    Raises
    ------
    ConfigurationError
        The point is none of a round's.
    """
    if not point:
        return lambda reached: None
    if point not in POINTS:
        raise ConfigurationError(f"MMAL_HOLD_AT = {point!r} is no point of a round. Use one of: {', '.join(POINTS)}")

    def hold(reached: str) -> None:
        if reached == point:
            (data_dir / "held").write_text(point)
            threading.Event().wait()

    return hold
