"""For fault tests: a worker that stands still at a named point of a round until it is killed or let go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from backend.errors import ConfigurationError
from backend.rounds.pipeline import PAIRING_POINTS, POINTS


def hold_at(point: str, data_dir: Path) -> Callable[[str], None]:
    """A callback that, the first time `point` is reached, makes a file `held` in the data folder and waits until
    somebody removes it.

    Raises
    ------
    ConfigurationError
        The point is none of a round's.
    """
    if not point:
        return lambda reached: None
    if point not in POINTS + PAIRING_POINTS:
        raise ConfigurationError(
            f"MMAL_HOLD_AT = {point!r} is no point of a round. Use one of: {', '.join(POINTS + PAIRING_POINTS)}"
        )

    flag = data_dir / "held"
    done = threading.Event()

    def hold(reached: str) -> None:
        if reached != point or done.is_set():
            return
        done.set()
        flag.write_text(point)
        while flag.exists():
            time.sleep(0.05)

    return hold
