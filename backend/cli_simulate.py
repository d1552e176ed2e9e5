"""`mmal simulate`: replays of labelled sets, of sets of pairs, of a project's own labels, or of an export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backend.cli_options import open_services

if TYPE_CHECKING:
    from backend.simulation.experiment import Plan
    from backend.simulation.labelled_set import LabelledSet
    from backend.simulation.pairing.experiment import PairingPlan
    from backend.simulation.pairing.pair_sets import PairingSet
    from backend.simulation.retrieval.experiment import RetrievalPlan
    from backend.simulation.retrieval.retrieval_sets import RetrievalSet
    from backend.simulation.study import Study

NOT_UNIFORM = (
    "labels collected by active learning are not a uniform sample of the project: the replay chooses among records"
    " that were already chosen, so differences between strategies come out smaller or other than on fresh records"
)
# The share of control questions in a batch that pairing has by itself: candidates are counted by them.
CONTROLS = 0.1


def simulate(
    task: Annotated[
        str,
        typer.Option(
            "--task",
            "-t",
            help="classification; pairing: the pairs of the sets are hidden; retrieval: pairs with several labels.",
        ),
    ] = "classification",
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset",
            "-d",
            help="demo, openclipart16, fluent57 or tux12; pairing: twins instead of demo; retrieval: without demo;"
            " may be repeated.",
        ),
    ] = None,
    project: Annotated[int | None, typer.Option("--project", "-p", help="The labels of this project.")] = None,
    export: Annotated[Path | None, typer.Option("--export", help="A JSON export of Label Studio.")] = None,
    label_config: Annotated[
        Path | None, typer.Option("--label-config", help="Label config (XML) of the export; guessed without it.")
    ] = None,
    strategies: Annotated[
        list[str] | None,
        typer.Option(
            "--strategies", "-s", help="NAME, COLD>NAME or NAME:OPTION=VALUE, several apart by spaces; or all."
        ),
    ] = None,
    scenario: Annotated[
        list[str] | None,
        typer.Option(
            "--scenario",
            help="plain, long_tail, text_blank, ... or all; pairing: plain, no_start, imbalanced, uneven, each with"
            " _outside behind it where the annotator looks beyond the candidates; retrieval: plain, labelled_pairs,"
            " ascmr_network; may be repeated.",
        ),
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option("--split", help="random or grouped (near-duplicates); may be repeated.")
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="Replays of each arm, each on its own split.")] = 10,
    first_seed: Annotated[int, typer.Option("--first-seed", help="Number of the first split.")] = 0,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Labels a round; the set's own.")] = None,
    budget: Annotated[int | None, typer.Option("--budget", help="Labels in all; the set's own.")] = None,
    audit_share: Annotated[
        float | None,
        typer.Option(
            "--audit-share", help=f"Part of each batch drawn at random for every arm; 0, in pairing {CONTROLS}."
        ),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Processes, one thread each.")] = 2,
    out: Annotated[Path, typer.Option("--out", help="Folder of the results.")] = Path("simulation"),
    cache: Annotated[Path, typer.Option("--cache", help="Where sets and vectors are kept.")] = Path(".cache"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what the folder holds and run all again.")] = False,
) -> None:
    """Replay labelled data as an active-learning project and tell which strategy needs fewest labels."""
    from backend.simulation.labelled_set import with_plan
    from backend.simulation.study import study
    from backend.simulation.tables import advice, report

    sources = [bool(dataset), project is not None, export is not None]
    if sum(sources) > 1:
        raise typer.BadParameter("give --dataset, --project or --export, one of them")
    own = project is not None or export is not None
    arms = [name for text in strategies or [] for name in text.split()]
    done: Study
    if task in ("pairing", "retrieval") and (own or split or label_config):
        raise typer.BadParameter(
            f"--task {task} replays sets of --dataset, on the one split there is (near-duplicates on one side);"
            " leave out --project, --export, --label-config and --split"
        )
    if task == "pairing":
        pairing = _pairing_plan(arms, scenario, seeds, first_seed, CONTROLS if audit_share is None else audit_share)
        hidden = _pairing_sets(dataset or ["fluent57"], cache, batch_size, budget)
        done = study(hidden, pairing, out, jobs=jobs, fresh=fresh)
    elif task == "retrieval":
        retrieval = _retrieval_plan(arms, scenario, seeds, first_seed, audit_share or 0.0)
        tagged = _retrieval_sets(dataset or ["fluent57"], cache, batch_size, budget)
        done = study(tagged, retrieval, out, jobs=jobs, fresh=fresh)
    elif task == "classification":
        plan = _plan(arms, scenario, split, seeds, first_seed, audit_share or 0.0)
        if project is not None:
            sets = [_project_set(project)]
        elif export is not None:
            sets = [_export_set(export, label_config, cache)]
        else:
            sets = _named_sets(dataset or ["demo"], cache)
        done = study([with_plan(data, batch_size, budget) for data in sets], plan, out, jobs=jobs, fresh=fresh)
    else:
        raise typer.BadParameter(f"task {task!r} cannot be replayed; choose classification, pairing or retrieval")
    typer.echo(report(done.comparisons, done.notes))
    for one in done.comparisons if own else []:
        typer.echo("\n".join(advice(one)))
    typer.echo("written: " + ", ".join(map(str, done.files)))


def _plan(
    arms: list[str],
    scenario: list[str] | None,
    split: list[str] | None,
    seeds: int,
    first_seed: int,
    audit_share: float,
) -> Plan:
    from backend.simulation.arms import all_arms, usual_arms
    from backend.simulation.experiment import Plan
    from backend.simulation.scenarios import SCENARIOS

    return Plan(
        all_arms() if arms == ["all"] else arms or usual_arms(),
        tuple(SCENARIOS) if scenario == ["all"] else tuple(scenario or ("plain",)),
        tuple(split or ("random",)),
        seeds,
        first_seed,
        audit_share,
    )


def _pairing_plan(
    arms: list[str], scenario: list[str] | None, seeds: int, first_seed: int, audit_share: float
) -> PairingPlan:
    from backend.simulation.pairing.experiment import PairingPlan, all_pair_arms, usual_pair_arms
    from backend.simulation.pairing.pools import SCENARIOS

    return PairingPlan(
        all_pair_arms() if arms == ["all"] else arms or usual_pair_arms(),
        tuple(SCENARIOS) if scenario == ["all"] else tuple(scenario or ("plain",)),
        seeds,
        first_seed,
        audit_share,
    )


def _pairing_sets(names: list[str], cache: Path, batch_size: int | None, budget: int | None) -> list[PairingSet]:
    from backend.settings import load_settings
    from backend.simulation.pairing import pair_sets

    sets = [pair_sets.named_pairing_set(name, cache, load_settings().encoder) for name in names]
    return [replace(data, batch_size=batch_size or data.batch_size, budget=budget or data.budget) for data in sets]


def _retrieval_plan(
    arms: list[str], scenario: list[str] | None, seeds: int, first_seed: int, audit_share: float
) -> RetrievalPlan:
    from backend.simulation.retrieval.experiment import RetrievalPlan, all_retrieval_arms, usual_retrieval_arms
    from backend.simulation.retrieval.replay import SCENARIOS

    return RetrievalPlan(
        all_retrieval_arms() if arms == ["all"] else arms or usual_retrieval_arms(),
        tuple(SCENARIOS) if scenario == ["all"] else tuple(scenario or ("plain",)),
        seeds,
        first_seed,
        audit_share,
    )


def _retrieval_sets(names: list[str], cache: Path, batch_size: int | None, budget: int | None) -> list[RetrievalSet]:
    from backend.settings import load_settings
    from backend.simulation.retrieval import retrieval_sets

    sets = [retrieval_sets.named_retrieval_set(name, cache, load_settings().encoder) for name in names]
    return [replace(data, batch_size=batch_size or data.batch_size, budget=budget or data.budget) for data in sets]


def _named_sets(names: list[str], cache: Path) -> list[LabelledSet]:
    from backend.settings import load_settings
    from backend.simulation.labelled_set import named_set

    return [named_set(name, cache, load_settings().encoder) for name in names]


def _project_set(project_id: int) -> LabelledSet:
    from backend.rounds.project_labels import labels_of_project
    from backend.simulation.labelled_set import own_set
    from backend.simulation.splits import near_duplicates, same_content

    known = labels_of_project(open_services(), project_id)
    groups = {
        "random": same_content(known.texts, known.images),
        "grouped": near_duplicates(known.texts, known.images),
    }
    notes = [NOT_UNIFORM]
    if known.learner != "late_fusion":
        notes.append(f"the project learns with {known.learner!r}; replays fit the plain linear head, 'late_fusion'")
    return own_set(f"project-{project_id}", known.features, known.labels, known.choices, groups, notes)


def _export_set(path: Path, label_config: Path | None, cache: Path) -> LabelledSet:
    from backend.labelstudio.client import LabelStudio
    from backend.labelstudio.media import MediaFetcher
    from backend.settings import load_settings
    from backend.simulation.export import export_set

    settings = load_settings()
    key = settings.label_studio_api_key.get_secret_value()
    # Without a token, pictures of the open web and of local files can still be had.
    authorization = LabelStudio(settings.label_studio_url, key).authorization if key else dict
    fetcher = MediaFetcher(
        settings.label_studio_url,
        authorization,
        settings.local_files_root,
        settings.max_media_bytes,
        settings.media_timeout,
        settings.media_allow,
    )
    config = None if label_config is None else label_config.read_text(encoding="utf-8")
    return export_set(path, config, fetcher, settings.encoder, cache, notes=[NOT_UNIFORM])
