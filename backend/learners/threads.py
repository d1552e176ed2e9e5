"""One BLAS thread for small products, where more cost more than they give."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache

# Loads the BLAS libraries of numpy and scipy, which the controller looks for once.
import scipy.linalg  # noqa: F401
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]


@cache
def _controller() -> ThreadpoolController:
    # Looking for the libraries takes 10 ms, many times what some fits take.
    return ThreadpoolController()


def one_thread_if(small: bool) -> AbstractContextManager[object]:
    """Context in which BLAS has one thread, where ``small``."""
    return _controller().limit(limits=1, user_api="blas") if small else nullcontext()
