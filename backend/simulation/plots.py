"""Curves with bands, one picture for each set, scenario and split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from backend.errors import PlotUnavailable
from backend.simulation.results import Comparison


def draw(comparisons: Sequence[Comparison], folder: Path) -> list[Path]:
    """Write a PNG for each comparison: mean accuracy over labels spent, bands of one standard error of the mean.

    Raises
    ------
    PlotUnavailable
        matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise PlotUnavailable(
            "curves.png is not drawn because matplotlib is missing; install it: pip install 'mmal-backend[simulate]'"
            " (or pip install matplotlib), and run the same command again: nothing is replayed twice."
        ) from error
    matplotlib.use("Agg")
    return [_picture(one, folder) for one in comparisons]


def _picture(one: Comparison, folder: Path) -> Path:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), dpi=120)
    colours = pyplot.get_cmap("tab20")
    for number, arm in enumerate(one.ranking()):
        own = one.arms[arm]
        mean = 100 * np.array(own.mean["accuracy"])
        style = {"color": "black", "linestyle": "--"} if arm == "random" else {"color": colours(number % 20)}
        axes.plot(one.n_labels, mean, label=f"{arm} ({one.difference(arm).mean:+.1f})", linewidth=1.5, **style)
        if "accuracy" in own.spread:
            error = 100 * np.array(own.spread["accuracy"]) / np.sqrt(len(own.seeds))
            axes.fill_between(one.n_labels, mean - error, mean + error, alpha=0.15, color=style["color"], linewidth=0)
    axes.set(xlabel="labels", ylabel="accuracy on held-out items, %", title=one.title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, title="AULC minus random", title_fontsize=7, loc="lower right")
    figure.tight_layout()
    path = folder / f"{one.dataset}-{one.scenario}-{one.split}.png".replace(" ", "-")
    figure.savefig(path)
    pyplot.close(figure)
    return path
