"""One BLAS thread for small products, where a second one waits more than it works."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache, wraps
from typing import ParamSpec, TypeVar

# Loads the BLAS libraries of numpy and scipy, which the controller looks for once.
import scipy.linalg  # noqa: F401
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

P = ParamSpec("P")
R = TypeVar("R")


@cache
def _controller() -> ThreadpoolController:
    # Looking for the libraries takes 10 ms, many times what some fits take.
    return ThreadpoolController()


def one_thread_if(small: bool) -> AbstractContextManager[object]:
    """Context in which BLAS has one thread, where ``small``."""
    return _controller().limit(limits=1, user_api="blas") if small else nullcontext()


def on_one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """The function, run with one BLAS thread."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with one_thread_if(True):
            return function(*args, **kwargs)

    return run
