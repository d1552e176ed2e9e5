"""The `mmal` command: a thin mirror of the library."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from backend.cli_backup import backup, restore
from backend.cli_catalogue import catalogue_app, stream_app
from backend.cli_options import JsonOption, ProjectOption, open_services, print_json
from backend.cli_simulate import simulate
from backend.errors import MmalError

app = typer.Typer(
    help="Multimodal active learning for Label Studio.",
    no_args_is_help=True,
    add_completion=False,
    # Tokens are among the values of an unexpected failure's variables.
    pretty_exceptions_show_locals=False,
)
project_app = typer.Typer(help="Create, attach and detach projects.", no_args_is_help=True)
strategy_app = typer.Typer(help="See and switch acquisition strategies.", no_args_is_help=True)
queue_app = typer.Typer(help="See the published queue, put skipped tasks back.", no_args_is_help=True)
round_app = typer.Typer(help="Start rounds and look at past ones.", no_args_is_help=True)
embed_app = typer.Typer(help="Embedding: what could not be read, and trying again.", no_args_is_help=True)
data_app = typer.Typer(help="Data sets of the benchmarks.", no_args_is_help=True)
for name, group in (
    ("project", project_app),
    ("strategy", strategy_app),
    ("queue", queue_app),
    ("round", round_app),
    ("embed", embed_app),
    ("catalogue", catalogue_app),
    ("stream", stream_app),
    ("data", data_app),
):
    app.add_typer(group, name=name)
for command in (backup, restore, simulate):
    app.command()(command)

# Processes ------------------------------------------------------------------------------------------------------


@app.command()
def serve() -> None:
    """Run the web process and the worker; both end together."""
    from backend.server.supervisor import supervise
    from backend.settings import load_settings

    raise typer.Exit(supervise(load_settings()))


@app.command()
def web() -> None:
    """Run the web process alone (gunicorn)."""
    from backend.server.gunicorn_app import run
    from backend.settings import load_settings

    run(load_settings())


@app.command()
def worker() -> None:
    """Run the worker alone: sync, embedding, rounds."""
    from backend import logs
    from backend.rounds.holding import hold_at
    from backend.rounds.services import services_in_time
    from backend.rounds.worker import Worker
    from backend.settings import load_settings

    settings = load_settings()
    logs.configure(settings)
    Worker(services_in_time(settings), hold_at(settings.hold_at, settings.data_dir)).run()


@app.command()
def settings() -> None:
    """List every setting: variable, value in force, default, meaning."""
    from backend.settings import load_settings

    for variable, value, default, meaning in load_settings().rows():
        typer.echo(f"{variable} = {value}    (default: {default or 'empty'})\n    {meaning}")


@app.command()
def allow(
    addresses: Annotated[list[str], typer.Argument(help="Addresses or networks at which backends listen.")],
) -> None:
    """Print the environment with which Label Studio may call a private address, and no other beside it."""
    from backend.labelstudio.allowed_addresses import environment_allowing

    for variable, value in environment_allowing(addresses).items():
        typer.echo(f"{variable}={value}")


# Projects -------------------------------------------------------------------------------------------------------


@project_app.command("create")
def project_create(
    template: Annotated[str, typer.Option(help="A folder of tasks_templates, by name or path.")],
    tasks: Annotated[Path | None, typer.Option(help="JSON file of tasks to import.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Text file with one label a line.")] = None,
    title: Annotated[str, typer.Option(help="Title; a project of this title made here before is used again.")] = "",
    strategy: Annotated[
        str | None, typer.Option(help="Acquisition strategy; default: the one for this template.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Tasks a round chooses together; default: 40.")] = None,
) -> None:
    """Create a project from a template, import tasks and attach it; safe to run twice, changing what is given."""
    from backend.rounds.creating import create_project

    services = open_services()
    project = create_project(
        services, template, tasks_file=tasks, labels_file=labels, title=title,
        options={"strategy": strategy, "batch_size": batch_size},
    )  # fmt: skip
    address = f"{services.settings.label_studio_url}/projects/{project.id}/data"
    typer.echo(f"project {project.id} ({project.title}) is attached: {address}")


@project_app.command("attach")
def project_attach(
    project: ProjectOption,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Attach although others have predictions there.")
    ] = False,
) -> None:
    """Set an existing project up: sampling, webhook, connection, queue tab; safe to run twice."""
    from backend.rounds.connecting import attach_project

    attached = attach_project(open_services(), project, take_over=take_over)
    typer.echo(f"project {attached.id} ({attached.title}) is attached")


@project_app.command("detach")
def project_detach(project: ProjectOption) -> None:
    """Give sampling, version, webhooks and fields back as they were."""
    from backend.rounds.connecting import detach_project

    if detach_project(open_services(), project):
        typer.echo(f"project {project} is detached and as it was before")
    else:
        typer.echo(f"project {project} is forgotten; the one at LABEL_STUDIO_URL is another, and was left alone")


@project_app.command("options")
def project_options(
    project: ProjectOption,
    changes: Annotated[list[str] | None, typer.Argument(help="NAME=VALUE, VALUE as JSON or plain text.")] = None,
) -> None:
    """Show or change the options of a project, such as prelabel=true or audit_share=0.2."""
    from backend.rounds.connecting import set_options
    from backend.rounds.services import options_of
    from backend.store import projects

    services = open_services()
    if changes:
        print_json(
            set_options(services, project, dict(map(_assignment, changes)), "mmal project options").model_dump()
        )
    else:
        print_json(options_of(projects.get(services.store, project)).model_dump())


def _assignment(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


@app.command()
def status(
    project: Annotated[int | None, typer.Option("--project", "-p", help="Only this project.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Queue, version, round, embedding, accuracy and last publish of each project."""
    from dataclasses import asdict

    from backend.rounds.report import status_lines
    from backend.rounds.status import project_status
    from backend.store import projects

    services = open_services()
    wanted = [projects.get(services.store, project)] if project else projects.every(services.store)
    statuses = [project_status(services, p, with_agreement=True) for p in wanted]
    if as_json:
        print_json([asdict(s) for s in statuses])
        return
    if not statuses:
        where = services.settings.data_dir.resolve()
        typer.echo(
            f"No project is connected in MMAL_DATA_DIR = {where}. If the backend has another folder, set that;"
            " else connect one: mmal project attach --project N"
        )
    for s in statuses:
        typer.echo("\n".join(status_lines(s)) + "\n")


@app.command()
def doctor(
    project: Annotated[int | None, typer.Option("--project", "-p", help="Only this project.")] = None,
) -> None:
    """Check token, sampling, version, webhooks and queue in Label Studio; exit 1 when something is wrong."""
    from backend.rounds.doctor import examine

    findings = examine(open_services(), project)
    for finding in findings:
        typer.echo(f"{'ok  ' if finding.ok else 'FAIL'} {finding.name}: {finding.detail}")
        if not finding.ok:
            typer.echo(f"     -> {finding.remedy}")
    raise typer.Exit(0 if all(f.ok for f in findings) else 1)


# Strategies, queue, rounds --------------------------------------------------------------------------------------


@strategy_app.command("list")
def strategy_list() -> None:
    """All strategies, what they need and their options."""
    from backend.strategies import describe, strategy_names

    for name in [*strategy_names(), *strategy_names(pairs=True)]:
        info = describe(name)
        typer.echo(
            f"{name}: {info.title}\n    {info.paper}\n    options: {json.dumps(dict(info.options), default=str)}"
        )


@strategy_app.command("set")
def strategy_set(
    strategy: Annotated[str, typer.Argument(help="Name of the strategy.")],
    project: ProjectOption,
    batch_size: Annotated[int | None, typer.Option(help="Tasks a round chooses together.")] = None,
    option: Annotated[list[str] | None, typer.Option("--option", "-o", help="NAME=VALUE for the strategy.")] = None,
) -> None:
    """Switch the strategy of a project; in force with the next batch."""
    from backend.rounds.connecting import set_options

    changes: dict[str, Any] = {"strategy": strategy}
    if option:
        changes["strategy_options"] = dict(map(_assignment, option))
    if batch_size is not None:
        changes["batch_size"] = batch_size
    after = set_options(open_services(), project, changes, "mmal strategy set")
    typer.echo(f"project {project}: {after.strategy}, batches of {after.batch_size}, from the next batch on")


@queue_app.command("show")
def queue_show(project: ProjectOption, as_json: JsonOption = False) -> None:
    """The published queue in the order Label Studio serves it."""
    from backend.rounds.report import queue_lines

    lines, rows = queue_lines(open_services(), project)
    if as_json:
        print_json(rows)
    else:
        typer.echo("\n".join(lines))


@queue_app.command("restore")
def queue_restore(
    project: ProjectOption,
    task: Annotated[list[int] | None, typer.Option("--task", help="Only this task; may be repeated.")] = None,
) -> None:
    """Put skipped tasks back into the pool."""
    from backend.store import projects, tasks

    store = open_services().store
    projects.get(store, project)
    count = tasks.restore_skipped(store, project, task or None)
    projects.request_round(store, project, f"{count} skipped tasks were put back", at_once=True)
    typer.echo(f"project {project}: {count} skipped tasks are back in the pool")


@queue_app.command("ties")
def queue_ties(project: ProjectOption) -> None:
    """Tasks whose annotators disagree or whose answers cannot be read: they train nothing until settled."""
    from backend.store import projects, tasks

    store = open_services().store
    projects.get(store, project)
    for task_id, kind in tasks.unsettled(store, project):
        typer.echo(f"task {task_id}: {kind}")


@app.command()
def accuracy(project: ProjectOption, as_json: JsonOption = False) -> None:
    """How well the model does, round by round, by the control sample."""
    from backend.rounds.report import accuracy_curve_lines

    lines, rows = accuracy_curve_lines(open_services(), project)
    if as_json:
        print_json(rows)
    else:
        typer.echo("\n".join(lines))


@app.command()
def explain(
    task: Annotated[int, typer.Argument(help="Number of the task in Label Studio.")],
    project: ProjectOption,
) -> None:
    """Why a task was chosen, in figures."""
    from backend.rounds.report import explain_lines

    typer.echo("\n".join(explain_lines(open_services(), project, task)))


@round_app.command("start")
def round_start(project: ProjectOption) -> None:
    """Ask for a round now."""
    from backend.store import projects

    store = open_services().store
    projects.get(store, project)
    projects.request_round(store, project, "asked for by mmal round start", at_once=True)
    typer.echo(f"project {project}: a round is asked for")


@round_app.command("list")
def round_list(project: ProjectOption) -> None:
    """The rounds of a project, the latest first."""
    from backend.rounds.report import round_lines

    typer.echo("\n".join(round_lines(open_services(), project)))


@embed_app.command("problems")
def embed_problems(project: ProjectOption) -> None:
    """Tasks with an image or text that could not be read, and why."""
    from backend.store import projects, tasks

    store = open_services().store
    projects.get(store, project)
    for task_id, modality, problem in tasks.problems(store, project):
        typer.echo(f"task {task_id}: {modality}: {problem}")


@embed_app.command("retry")
def embed_retry(project: ProjectOption) -> None:
    """Read those tasks again (the worker does so by itself at start and daily)."""
    from backend.store import catalogue, pauses, projects, tasks

    store = open_services().store
    projects.get(store, project)
    pauses.cut_short(store, "media", project)
    typer.echo(f"project {project}: {tasks.retry_problems(store, project)} tasks are read again")
    items = catalogue.retry_problems(store, project)
    if items:
        typer.echo(f"project {project}: {items} items of the catalogue are read again")


@data_app.command("get")
def data_get(
    name: Annotated[str, typer.Argument(help="openclipart16, fluent57 or tux12.")],
    cache: Annotated[Path, typer.Option(help="Folder to build it in.")] = Path(".cache"),
) -> None:
    """Build a benchmark data set from its packages."""
    from backend.simulation.datasets import build_dataset

    typer.echo(str(build_dataset(name, cache)))


def main() -> NoReturn:
    """Entry point: failures of ours end in one clear line, not in a traceback."""
    try:
        app()
    except MmalError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(2)
    sys.exit(0)


if __name__ == "__main__":
    main()
