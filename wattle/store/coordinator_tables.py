"""The tables of the coordinator's store, and how those of older schemas become them."""

from __future__ import annotations

import peewee
from peewee import BooleanField, CompositeKey, FloatField, IntegerField, TextField

from wattle.store.base import Migration
from wattle.store.copies import COPY_MODELS

_ZERO: list[peewee.Node] = [
    peewee.SQL("DEFAULT 0")
]  # for statements that leave the column out: peewee's own default is not in the schema


class Documents(peewee.Model):
    """Workflow documents by the sha256 of their JSON: a definition and its runs share one copy."""

    digest = TextField(primary_key=True)
    body = TextField()


class Workflows(peewee.Model):
    """Named definitions. ``status``, ``started_at`` and ``completed_at`` are the latest run's; a deleted one keeps its row."""

    name = TextField(primary_key=True)
    working_dir = TextField(null=True)
    status = TextField(default="created")
    created_at = FloatField()
    updated_at = FloatField()
    number = IntegerField(default=0, constraints=_ZERO)  # of the newest commit that changed the definition
    deleted_at = FloatField(null=True)
    started_at = FloatField(null=True)
    completed_at = FloatField(null=True)
    latest_run = TextField(null=True)
    workers = IntegerField()
    document = TextField(index=True)


class Runs(peewee.Model):
    """Executions of workflows."""

    id = TextField(primary_key=True)
    workflow_name = TextField(index=True)
    status = TextField(index=True)
    owner = TextField()
    epoch = IntegerField()
    created_at = FloatField(index=True)
    started_at = FloatField(null=True)
    completed_at = FloatField(null=True, index=True)
    error_message = TextField(null=True)
    cancel_requested = BooleanField(default=False)
    counts = TextField()
    params = TextField()
    document = TextField(index=True)
    retried = IntegerField(default=0, constraints=_ZERO)
    adopted = IntegerField(default=0, constraints=_ZERO)
    number = IntegerField(
        default=0, index=True, constraints=_ZERO
    )  # of the newest commit that touched the run or anything of it


class Workers(peewee.Model):
    """Workers of runs: their definition as submitted, and where they stand."""

    run = TextField()
    name = TextField()
    position = IntegerField()
    workflow_name = TextField()
    command = TextField(null=True)
    args = TextField()
    script = TextField(null=True)
    working_dir = TextField(null=True)
    env_vars = TextField()
    inputs = TextField()
    outputs = TextField()
    needs = TextField()
    status = TextField()
    error_message = TextField(null=True)
    attempts = IntegerField()
    failures = IntegerField()
    losses = IntegerField()
    reproduced = IntegerField()
    not_before = FloatField(null=True)
    results = TextField()
    created_at = FloatField()
    ready_at = FloatField(null=True)
    started_at = FloatField(null=True)
    completed_at = FloatField(null=True)
    deleted_at = FloatField(null=True)

    class Meta:
        primary_key = CompositeKey("run", "name")
        without_rowid = True


class Tasks(peewee.Model):
    """Attempts of workers."""

    run = TextField()
    worker = TextField()
    attempt = IntegerField()
    node = TextField()
    status = TextField()
    assigned_at = FloatField()
    started_at = FloatField(null=True)
    completed_at = FloatField(null=True)
    exit_code = IntegerField(null=True)
    signal = IntegerField(null=True)
    error_message = TextField(null=True)
    cpu_seconds = FloatField(null=True)
    memory_peak = IntegerField(null=True)

    class Meta:
        primary_key = CompositeKey("run", "worker", "attempt")
        without_rowid = True


class Cursors(peewee.Model):
    """The last entry learned of each runtime's feed."""

    node = TextField(primary_key=True)
    store = TextField()
    number = IntegerField()


class Holders(peewee.Model):
    """Which nodes have which content of a run."""

    run = TextField()
    digest = TextField()
    node = TextField()

    class Meta:
        primary_key = CompositeKey("run", "digest", "node")
        without_rowid = True


class Forgotten(peewee.Model):
    """Runs that were here and are not any more, with the commit that removed them: told to those who keep copies.

    ``head`` is the last state (JSON) here: of one that was pruned, or else of a run that another owner has.
    """

    run = TextField(primary_key=True)
    number = IntegerField(index=True)
    at = FloatField(index=True)
    head = TextField(null=True)


MODELS = (Documents, Workflows, Runs, Workers, Tasks, Cursors, Holders, Forgotten, *COPY_MODELS)


def _add_copies(database: peewee.SqliteDatabase) -> None:
    """Schema 2: several coordinators."""
    for column in ("retried", "adopted", "number"):
        database.execute_sql(f"ALTER TABLE runs ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")
    database.execute_sql("ALTER TABLE workflows ADD COLUMN number INTEGER NOT NULL DEFAULT 0")
    for table, column in (
        ("runs", "number"),
        ("runs", "completed_at"),
        ("runs", "document"),
        ("workflows", "document"),
    ):
        database.execute_sql(f'CREATE INDEX "{table}_{column}" ON "{table}" ("{column}")')
    database.create_tables([Forgotten, *COPY_MODELS])


MIGRATIONS: tuple[Migration, ...] = (_add_copies,)
