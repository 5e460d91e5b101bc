"""A compiled workflow run without a network, to see that documents mean what they should."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from wattle.core.graph import topological_order
from wattle.core.model import Assignment, Input, Workflow
from wattle.runtime.layout import Folders, declared_outputs, layout, make_folder

RunHere = Callable[[Workflow], dict[str, str]]


def run_locally(workflow: Workflow, folder: Path) -> dict[str, str]:
    """Run one worker after the other, laid out as a runtime does below ``folder``; returns what each wrote to stdout."""
    folders = Folders(folder)
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
        make_folder(where.cwd)
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
