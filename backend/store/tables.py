"""The tables. Times are seconds since the epoch, so that ages are plain subtractions on every database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Text,
    false,
    literal_column,
    or_,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# SQLite only counts rows up by itself for a column that is exactly INTEGER.
AutoId = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """Root of the tables."""

    type_annotation_map = {dict[str, Any]: JSON, list[str]: JSON, list[int]: JSON, list[float]: JSON}  # noqa: RUF012  (SQLAlchemy reads it so)


class Project(Base):
    """A Label Studio project and what is in force in it."""

    __tablename__ = "projects"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    title: Mapped[str] = mapped_column(Text, default="")
    label_config: Mapped[str] = mapped_column(Text, default="")
    schema_hash: Mapped[str] = mapped_column(String(64), default="")
    state: Mapped[str] = mapped_column(String(16), default="new")
    problem: Mapped[str] = mapped_column(Text, default="")
    options: Mapped[dict[str, Any]] = mapped_column(default=dict)
    extra_params_seen: Mapped[str] = mapped_column(Text, default="")
    version: Mapped[str] = mapped_column(String(128), default="")
    round_number: Mapped[int] = mapped_column(Integer, default=0)
    watermark: Mapped[str] = mapped_column(String(40), default="")
    synced_at: Mapped[float] = mapped_column(Float, default=0.0)
    reconciled_at: Mapped[float] = mapped_column(Float, default=0.0)
    unsynced_answers: Mapped[int] = mapped_column(Integer, default=0)
    answers_compared: Mapped[str] = mapped_column(String(40), default="")
    round_requested: Mapped[str] = mapped_column(Text, default="")
    round_not_before: Mapped[float] = mapped_column(Float, default=0.0)
    failures: Mapped[int] = mapped_column(Integer, default=0)
    published_at: Mapped[float] = mapped_column(Float, default=0.0)
    last_error: Mapped[str] = mapped_column(Text, default="")
    last_error_at: Mapped[float] = mapped_column(Float, default=0.0)
    original: Mapped[dict[str, Any]] = mapped_column(default=dict)


class Task(Base):
    """A task of Label Studio: what is embedded of it and what it is labelled as.

    ``image`` and ``text`` are the inputs; ``*_hash`` is the key of their vector, empty until it is embedded
    or when the modality is absent, in which case ``*_problem`` says why.
    ``embed_order`` is a uniform draw, so that what is embedded at any moment is a random sample of the pool.
    ``embed_again``: it could not be read and is to be tried again; until then it counts with what it has.
    ``overlap_asked``: how many annotators Label Studio was asked to give the task to, 0 where nobody asked;
    ``overlap_before``: what that was before we raised it, 0 where we did not.
    """

    __tablename__ = "tasks"
    project_id: Mapped[int] = mapped_column(Integer, primary_key=True)
    task_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    image: Mapped[str] = mapped_column(Text, default="")
    text: Mapped[str] = mapped_column(Text, default="")
    image_hash: Mapped[str] = mapped_column(String(64), default="")
    text_hash: Mapped[str] = mapped_column(String(64), default="")
    image_problem: Mapped[str] = mapped_column(Text, default="")
    text_problem: Mapped[str] = mapped_column(Text, default="")
    embedded_with: Mapped[str] = mapped_column(String(128), default="")
    embed_order: Mapped[float] = mapped_column(Float, default=0.0)
    label_kind: Mapped[str] = mapped_column(String(12), default="none")
    label: Mapped[list[str]] = mapped_column(default=list)
    restored: Mapped[bool] = mapped_column(default=False)
    reason: Mapped[str] = mapped_column(String(24), default="")
    overlap_asked: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    overlap_before: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    deleted: Mapped[bool] = mapped_column(default=False)
    embed_again: Mapped[bool] = mapped_column(default=False, server_default=false())
    __table_args__ = (
        Index("tasks_to_embed", "project_id", "deleted", "embedded_with", "embed_order"),
        # All that `tasks.counts` reads, after every look and every embedded chunk: the rows hold texts and pictures.
        Index("tasks_by_label", "project_id", "deleted", "label_kind", "embedded_with", "restored"),
    )


# Written out: a database uses an index of some rows only where it finds its condition in the query, word by word.
_EMPTY: ColumnElement[str] = literal_column("''")
TASK_UNREADABLE = or_(Task.image_problem != _EMPTY, Task.text_problem != _EMPTY)
Index(
    "tasks_unreadable",
    *(Task.project_id, Task.deleted, Task.embed_again, Task.embed_order),
    sqlite_where=TASK_UNREADABLE,
    postgresql_where=TASK_UNREADABLE,
)


class AnswerRow(Base):
    """One annotation as Label Studio holds it; replaced whole with its task."""

    __tablename__ = "answers"
    project_id: Mapped[int] = mapped_column(Integer, primary_key=True)
    annotation_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    task_id: Mapped[int] = mapped_column(BigInteger)
    annotator_id: Mapped[int] = mapped_column(BigInteger, default=0)
    updated_at: Mapped[str] = mapped_column(String(40), default="")
    choices: Mapped[list[str]] = mapped_column(default=list)
    has_choices: Mapped[bool] = mapped_column(default=False)
    was_cancelled: Mapped[bool] = mapped_column(default=False)
    ground_truth: Mapped[bool] = mapped_column(default=False)
    problem: Mapped[str] = mapped_column(Text, default="")
    __table_args__ = (
        Index("answers_by_task", "project_id", "task_id"),
        Index("answers_by_kind", "project_id", "was_cancelled"),
    )


class Vector(Base):
    """Where the vector of one content lies in the vector file of its encoder and modality."""

    __tablename__ = "vectors"
    encoder_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    modality: Mapped[str] = mapped_column(String(16), primary_key=True)
    content_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    row: Mapped[int] = mapped_column(BigInteger)


class CatalogueItem(Base):
    """An image or a text of a pairing project that has no counterpart yet, or got one.

    ``content`` is the address of the image or the text itself; ``state``: "pool" may be asked about and offered,
    "buffer" waits in a stream, "judged" did and stays on offer, "dropped" is neither, but a pair it is part of
    stays. ``written``: the key of the query whose answer is this text, else empty. ``embed_again`` as of tasks.
    """

    __tablename__ = "catalogue"
    project_id: Mapped[int] = mapped_column(Integer, primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    item_id: Mapped[str] = mapped_column(String(128))
    modality: Mapped[str] = mapped_column(String(8))
    content: Mapped[str] = mapped_column(Text)
    content_hash: Mapped[str] = mapped_column(String(64), default="")
    problem: Mapped[str] = mapped_column(Text, default="")
    embedded_with: Mapped[str] = mapped_column(String(128), default="")
    embed_order: Mapped[float] = mapped_column(Float, default=0.0)
    state: Mapped[str] = mapped_column(String(8), default="pool")
    written: Mapped[str] = mapped_column(String(160), default="")
    added_at: Mapped[float] = mapped_column(Float, default=0.0)
    embed_again: Mapped[bool] = mapped_column(default=False, server_default=false())
    __table_args__ = (
        Index("catalogue_by_id", "project_id", "item_id", unique=True),
        Index("catalogue_to_embed", "project_id", "embedded_with", "embed_order"),
        # Counted after every look at Label Studio: without it SQLite walks through the pictures inside the contents.
        Index("catalogue_by_state", "project_id", "state", "modality", "embedded_with"),
    )


ITEM_UNREADABLE = CatalogueItem.problem != _EMPTY
Index(
    "catalogue_unreadable",
    *(CatalogueItem.project_id, CatalogueItem.embed_again, CatalogueItem.embed_order),
    sqlite_where=ITEM_UNREADABLE,
    postgresql_where=ITEM_UNREADABLE,
)


class PairQueryRow(Base):
    """A question for a counterpart: chosen by a round, asked once it has a task, answered as Label Studio says.

    ``item`` and ``candidates`` (best first) are numbers of the catalogue; ``answer`` is a kind of
    `labelstudio.pair_answers`, ``partner`` the number that was picked or 0, ``further_partners`` those that were
    ticked beside it.
    """

    __tablename__ = "pair_queries"
    project_id: Mapped[int] = mapped_column(Integer, primary_key=True)
    key: Mapped[str] = mapped_column(String(160), primary_key=True)
    task_id: Mapped[int] = mapped_column(BigInteger, default=0)
    round_number: Mapped[int] = mapped_column(Integer)
    modality: Mapped[str] = mapped_column(String(8))
    item: Mapped[int] = mapped_column(Integer)
    candidates: Mapped[list[int]]
    similarities: Mapped[list[float]] = mapped_column(default=list)
    purpose: Mapped[str] = mapped_column(String(12), default="query")
    why: Mapped[str] = mapped_column(String(24), default="")
    figures: Mapped[dict[str, Any]] = mapped_column(default=dict)
    answer: Mapped[str] = mapped_column(String(12), default="open")
    partner: Mapped[int] = mapped_column(Integer, default=0)
    further_partners: Mapped[list[int]] = mapped_column(default=list)
    answered_at: Mapped[str] = mapped_column(String(40), default="")
    __table_args__ = (Index("pair_queries_by_task", "project_id", "task_id"),)


class Round(Base):
    """One active-learning round; ``step`` is the last point it reached.

    ``schema_hash``: of the label config that the answers of its head belong to, empty where it has no head.
    """

    __tablename__ = "rounds"
    id: Mapped[int] = mapped_column(AutoId, primary_key=True)
    project_id: Mapped[int] = mapped_column(Integer, index=True)
    number: Mapped[int] = mapped_column(Integer)
    version: Mapped[str] = mapped_column(String(128), default="")
    trigger: Mapped[str] = mapped_column(Text, default="")
    strategy: Mapped[str] = mapped_column(String(64), default="")
    options: Mapped[dict[str, Any]] = mapped_column(default=dict)
    seed: Mapped[int] = mapped_column(Integer, default=0)
    status: Mapped[str] = mapped_column(String(12), default="running")
    step: Mapped[str] = mapped_column(String(32), default="")
    counts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    seconds: Mapped[dict[str, Any]] = mapped_column(default=dict)
    error: Mapped[str] = mapped_column(Text, default="")
    head: Mapped[str] = mapped_column(Text, default="")
    schema_hash: Mapped[str] = mapped_column(String(64), default="", server_default="")
    started_at: Mapped[float] = mapped_column(Float, default=0.0)
    finished_at: Mapped[float] = mapped_column(Float, default=0.0)


class QueueEntry(Base):
    """A place in the queue that a round chose."""

    __tablename__ = "queue_entries"
    round_id: Mapped[int] = mapped_column(AutoId, primary_key=True)
    rank: Mapped[int] = mapped_column(Integer, primary_key=True)
    project_id: Mapped[int] = mapped_column(Integer)
    task_id: Mapped[int] = mapped_column(BigInteger)
    role: Mapped[str] = mapped_column(String(8))
    reason: Mapped[str] = mapped_column(String(24))
    figures: Mapped[dict[str, Any]] = mapped_column(default=dict)
    __table_args__ = (
        Index("queue_by_task", "project_id", "task_id"),
        ForeignKeyConstraint(["round_id"], ["rounds.id"], ondelete="CASCADE"),
    )


class ControlPrediction(Base):
    """What the head of a round says of a control task it drew, to be compared with the answer that comes.

    Deleted where the task is still unanswered when another queue replaces the one it was drawn for.
    """

    __tablename__ = "control_predictions"
    project_id: Mapped[int] = mapped_column(Integer, primary_key=True)
    round_id: Mapped[int] = mapped_column(AutoId, primary_key=True)
    task_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    predicted: Mapped[list[str]]
    __table_args__ = (ForeignKeyConstraint(["round_id"], ["rounds.id"], ondelete="CASCADE"),)


class Event(Base):
    """A hint from Label Studio that something changed; the truth is read by polling."""

    __tablename__ = "events"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012  (numbers are never used twice)
    id: Mapped[int] = mapped_column(AutoId, primary_key=True)
    project_id: Mapped[int] = mapped_column(Integer, index=True)
    action: Mapped[str] = mapped_column(String(40))
    received_at: Mapped[float] = mapped_column(Float)


class CounterRow(Base):
    """A sum for the metrics; ``labels``: the values of its labels as a JSON list."""

    __tablename__ = "counters"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    labels: Mapped[str] = mapped_column(String(255), primary_key=True)
    value: Mapped[float] = mapped_column(Float, default=0.0)


class Lease(Base):
    """Who may run what; a holder whose heartbeat is old has lost it."""

    __tablename__ = "leases"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    holder: Mapped[str] = mapped_column(String(128))
    heartbeat_at: Mapped[float] = mapped_column(Float)


class Note(Base):
    """Single values: the events secret, progress of embedding."""

    __tablename__ = "notes"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[dict[str, Any]] = mapped_column(default=dict)
