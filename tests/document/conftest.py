"""What several tests of documents share."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from wattle.core.graph import topological_order
from wattle.core.model import Assignment, Input, Workflow
from wattle.runtime.layout import Folders, declared_outputs, layout

RunHere = Callable[[Workflow], dict[str, str]]


@pytest.fixture
def run_here(tmp_path: Path) -> RunHere:
    """Runs a compiled workflow one worker after the other, laid out as a runtime does; returns what each wrote to stdout."""

    def run(workflow: Workflow) -> dict[str, str]:
        folders = Folders(tmp_path / "data")
        files: dict[tuple[str, str], Path] = {}
        printed: dict[str, str] = {}
        for name in topological_order({name: spec.needs for name, spec in workflow.workers.items()}):
            spec = workflow.workers[name]
            inputs = {
                key: Input(producer, output, workflow.workers[producer].outputs[output], "", 0)
                for key, (producer, output) in spec.inputs.items()
            }
            task = Assignment(
                run="r-1", worker=name, attempt=1, epoch=1, workflow=workflow.name, argv=spec.argv, script=spec.script,
                env=spec.env, working_dir=spec.working_dir, inputs=inputs, outputs=spec.outputs, params=spec.params,
            )  # fmt: skip
            where = layout(task, folders)
            where.cwd.mkdir(parents=True, exist_ok=True)
            for key, path in where.inputs.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(files[spec.inputs[key]], path)
            done = subprocess.run(where.argv, cwd=where.cwd, env=os.environ | where.env, capture_output=True, text=True)
            assert done.returncode == 0, (name, done.stderr)
            printed[name] = done.stdout
            for output in declared_outputs(task):
                assert where.outputs[output].is_file(), f"{name} made no {output}"
                files[(name, output)] = where.outputs[output]
        return printed

    return run
