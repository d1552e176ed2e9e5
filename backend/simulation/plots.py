"""Curves with bands, one picture for each set, scenario and split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backend.errors import PlotUnavailable
from backend.simulation.results import Comparison

# Arms that a legend inside the picture leaves room for.
MOST_INSIDE = 10


def draw(comparisons: Sequence[Comparison], folder: Path) -> list[Path]:
    """Write a PNG for each comparison: the mean of each measure that its task draws over what was spent, bands of one
    standard error of the mean.

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

    drawn = [measure for measure in one.yardstick.drawn if measure in one.arms[one.yardstick.reference].mean]
    figure, panels = pyplot.subplots(1, len(drawn), figsize=(8 * len(drawn), 5), dpi=120, squeeze=False)
    for axes, measure in zip(panels[0], drawn, strict=True):
        _curves(axes, one, measure)
    figure.tight_layout()
    path = folder / f"{one.dataset}-{one.scenario}-{one.split}.png".replace(" ", "-")
    figure.savefig(path)
    pyplot.close(figure)
    return path


def _curves(axes: Any, one: Comparison, measure: str) -> None:
    from matplotlib import pyplot

    palette = pyplot.get_cmap("tab20")
    # By the headline in every panel, so that an arm keeps its colour.
    colours = {arm: palette(number % 20) for number, arm in enumerate(one.ranking())}
    reference = one.yardstick.reference
    for arm in one.ranking(measure):
        own = one.arms[arm]
        mean = 100 * np.array(own.mean[measure])
        style = {"color": "black", "linestyle": "--"} if arm == reference else {"color": colours[arm]}
        label = f"{arm} ({one.difference(arm, measure=measure).mean:+.1f})"
        axes.plot(one.n_labels, mean, label=label, linewidth=1.5, **style)
        if measure in own.spread:
            error = 100 * np.array(own.spread[measure]) / np.sqrt(len(own.seeds))
            axes.fill_between(one.n_labels, mean - error, mean + error, alpha=0.15, color=style["color"], linewidth=0)
    axes.set(xlabel=one.yardstick.spent, ylabel=one.yardstick.drawn[measure], title=one.title)
    axes.grid(alpha=0.3)
    # Many arms would hide the curves they name.
    beside = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0)} if len(one.arms) > MOST_INSIDE else {"loc": "best"}
    axes.legend(fontsize=7, title=f"AULC minus {reference}", title_fontsize=7, **beside)
