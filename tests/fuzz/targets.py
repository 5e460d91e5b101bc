"""The targets that need no network: texts in, values or a refusal out."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from random import Random
from typing import Any, ClassVar

from tests.fuzz import corpus
from tests.fuzz.engine import Target
from tests.fuzz.mutate import VALUES, WORDS, Mutator
from wattle.core.model import TaskId
from wattle.core.template import malformed, references, render, render_script
from wattle.document.compile import compile_document, plan, to_json
from wattle.document.load import load, load_value
from wattle.document.wfformat import convert
from wattle.errors import InvalidRequest, SettingsError, WattleError, error_from_dict
from wattle.gateway.submission import _read
from wattle.names import as_name, check_name, is_name, name_problem, new_run_id
from wattle.peer.asking import parse_number, parse_object, parse_parameters, parse_seconds
from wattle.protocol.keys import STREAMS, Keys
from wattle.protocol.messages import AssignBatch, check_assignments, decode, encode
from wattle.runtime.layout import Folders, layout
from wattle.settings import values as settings_values
from wattle.settings.agents import KINDS
from wattle.settings.load import load_settings

KEYS = Keys()


class Documents(Target):
    """``load`` of JSON and YAML, changed byte by byte and value by value; what loads compiles twice to the same."""

    name = "documents"

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.mutator = Mutator(random, corpus.documents(), corpus.json_documents())
        self.sound = Mutator(random, corpus.sound(corpus.documents()), corpus.sound(corpus.json_documents()))

    def make(self) -> Any:
        mutator, choice = self.sound if self.random.random() < 0.6 else self.mutator, self.random.random()
        if choice < 0.35:
            return mutator.some_bytes(3)
        text = mutator.some_json(2)
        return text if choice < 0.7 else text.encode("utf-8", "surrogatepass")

    def check(self, given: Any) -> str:
        document = load(given)
        stored = to_json(document)
        assert load_value(stored) == document, "a stored document reads back as another one"
        try:
            compiled = compile_document(document)
        except InvalidRequest:
            return "needs params"
        assert compile_document(load_value(json.loads(json.dumps(stored)))) == compiled, "compiled to something else"
        return "accepted"


class Yaml(Documents):
    """The same with everything read as YAML, JSON included, of which YAML makes something of its own."""

    name = "yaml"

    def check(self, given: Any) -> str:
        load(given, format="yaml")
        return "accepted"


class Params(Target):
    """Compiling and planning with parameters that may be anything JSON knows."""

    name = "params"
    TEXTS: ClassVar = [
        '{"name":"p","params":{"a":1,"b":null,"c":"x"},"working_dir":"/t/${params.c}","workers":['
        '{"name":"w","script":"echo $WATTLE_PARAM_A","args":["${params.b}"],"outputs":{"o":"${params.a}/x"}},'
        '{"name":"v","command":"x ${inputs.i}","inputs":{"i":"w/o"},"working_dir":"${params.b}"}]}',
        '{"name":"q","params":{"n":1.5},"mode":"levels","env_vars":{"A":"${params.n}"},"workers":[{"name":"w","command":"true"}]}',
    ]

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.documents = [load(text) for text in self.TEXTS]
        given = ['{"a":1,"b":"x","c":true}', '{"b":"/y","c":"../z"}', '{"n":2}', '{"b":"${params.a}","a":"."}', "{}"]
        self.mutator = Mutator(random, jsons=given)

    def make(self) -> Any:
        return (str(self.mutator.below(len(self.documents))), self.mutator.some_json())

    def check(self, given: Any) -> str:
        index, text = given
        document = self.documents[int(index or 0)]
        params = parse_object(text.encode("utf-8", "surrogatepass"))
        compiled = compile_document(document, params)
        assert compile_document(document, params) == compiled, "compiled to something else"
        plan(document, params)
        return "accepted"


class Instances(Target):
    """``import wfformat``, with scales."""

    name = "wfformat"
    SCALES: ClassVar = (1.0, 0.0, 0.001, 1e-300, 1e300, 5.0)

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.mutator = Mutator(random, jsons=corpus.instances())

    def make(self) -> Any:
        return (
            self.mutator.some_json().encode("utf-8", "surrogatepass")
            if self.random.random() < 0.7
            else self.mutator.some_bytes()
        )

    def check(self, given: Any) -> str:
        scale = self.SCALES[len(given) % len(self.SCALES)]
        document = convert(given, time_scale=scale, data_scale=scale)
        compile_document(load_value(document))
        return "accepted"


class Messages(Target):
    """Every internal message: what is accepted is told again as it was."""

    name = "messages"

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.kinds = corpus.message_types()
        self.names = {kind.__name__: kind for kind in self.kinds}
        self.mutators = []
        for kind in self.kinds:
            seeds = [encode(sample).decode() for sample in corpus.samples(kind)]
            for seed, sample in zip(seeds, corpus.samples(kind), strict=True):
                assert decode(kind, seed.encode()) == sample, kind
            self.mutators.append(Mutator(random, jsons=seeds))

    def make(self) -> Any:
        index = int(self.random.random() * len(self.kinds))
        mutator = self.mutators[index]
        payload = (
            mutator.some_bytes() if self.random.random() < 0.3 else mutator.some_json().encode("utf-8", "surrogatepass")
        )
        return (self.kinds[index].__name__, payload)

    def check(self, given: Any) -> str:
        name, payload = given
        if name not in self.names:
            return "no type"
        kind = self.names[name]
        message: Any = decode(kind, payload)
        again = encode(message)
        assert decode(kind, again) == message, "said again it is another one"
        return "accepted"


class Assignments(Target):
    """Assignments as a node takes them: what passes its checks is laid out within its folders, or refused."""

    name = "assignments"

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        seeds = [
            encode(sample).decode().replace('"digest":"w"', f'"digest":"{"0" * 64}"')
            for sample in corpus.samples(AssignBatch)
        ]
        seeds += [seeds[0].replace('"script"', '"cause"'), seeds[0].replace('"path":"w"', '"path":"/w/v"')]
        self.mutator = Mutator(random, jsons=seeds)
        self.folders = Folders(Path("/data"))

    def make(self) -> Any:
        return self.mutator.some_json().encode("utf-8", "surrogatepass")

    def check(self, given: Any) -> str:
        batch = decode(AssignBatch, given)
        check_assignments(batch)
        for task in batch.tasks:
            at = layout(task, self.folders)
            for path in (Path(at.stdout), Path(at.stderr), self.folders.work(task.id)):
                assert ".." not in path.parts, "a path that leads out of its folder"
                assert path.is_relative_to("/data"), "a path that leads out of its folder"
            for key, source in task.inputs.items():
                assert source.path.startswith("/") or at.inputs[key].is_relative_to(Path(at.cwd, "inputs")), (
                    "an input outside"
                )
        return "accepted"


class KeyParsers(Target):
    """Every parser of keys: each method of Keys that takes a ``key`` and nothing else, found by itself."""

    name = "keys"

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        found = inspect.getmembers(Keys, inspect.isfunction)
        self.parsers = [name for name, method in found if list(inspect.signature(method).parameters) == ["self", "key"]]
        task = TaskId("r", "w", 1)
        keys = [
            KEYS.api("runs/r/workers/w/logs/stdout"), KEYS.event_worker("r", "w"), KEYS.state("runtime", "n"),
            KEYS.alive("runtime", "n", "1"), KEYS.feed("n"), KEYS.cmd("n", "assign"), KEYS.blob("0" * 64),
            KEYS.blob_from("0" * 64, "n"), *(KEYS.log(task, s) for s in STREAMS), "wattle/other/feed/n", KEYS.api("**"), KEYS.logs,
        ]  # fmt: skip
        self.mutator = Mutator(random, keys)

    def make(self) -> Any:
        return (self.parsers[self.mutator.below(len(self.parsers))], self.mutator.some_text(3))

    def check(self, given: Any) -> str:
        parser, key = given
        if parser not in self.parsers:
            return "no parser"
        found = getattr(KEYS, parser)(key)
        if parser == "parse_alive":
            assert KEYS.alive(*found) == key, "a token that stands for another key"
            assert all(map(is_name, found)), "a token with parts that are no names"
        elif parser == "parse_log":
            assert KEYS.log(*found) == key, "a log that has another key"
        return "accepted"


class Texts(Target):
    """Names, templates, parameters of requests and error replies."""

    name = "texts"

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        seeds = [
            "a=1;b=2&c=%20x", "wait=5;limit=10;offset=0;tail=1", "wordcount-19700101-000000-k3f9",
            "${params.x} $${y} ${run.id} ${inputs.a-b}", "${outputs.o", "a-b_c.d",
            '{"code":"RUN_NOT_FOUND","message":"m","detail":[]}', '{"document":{"name":"x","workers":[]},"run":"r","params":{}}',
            "name: x\nworkers: []\n",
        ]  # fmt: skip
        self.mutator = Mutator(random, [*seeds, *WORDS])

    def make(self) -> Any:
        return self.mutator.some_text()

    def check(self, given: Any) -> str:
        problem = name_problem(given)
        assert (problem is None) == is_name(given), "is a name, and is none"
        made = as_name(given)
        assert check_name(made, "made") == made
        assert is_name(new_run_id(made, 1.0, "abcd")), "a run id that is no name"
        found = references(given)
        assert all(str(reference) in given for reference in found), "a reference that does not stand there"
        malformed(given)
        assert references(render(given, dict.fromkeys(found, ""))) is not None
        render_script(given)
        self._error(given)
        refused = 0
        for read in (self._parameters, self._submission):
            try:
                read(given)
            except WattleError:
                refused += 1
        return "accepted" if not refused else f"refused by {refused}"

    @staticmethod
    def _parameters(text: str) -> None:
        parameters = parse_parameters(text)
        for name in parameters:
            with contextlib.suppress(InvalidRequest):
                assert 0 <= parse_number(parameters, name, 0, 0, 2**62) <= 2**62
            with contextlib.suppress(InvalidRequest):
                assert 0 <= parse_seconds(parameters, name, 10.0) <= 10.0

    @staticmethod
    def _submission(text: str) -> None:
        submission = _read(text.encode("utf-8", "surrogateescape"), None)
        assert isinstance(submission.name, str)
        json.loads(submission.payload)

    @staticmethod
    def _error(text: str) -> None:
        if text[:1] == "{":
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):
                return
            if isinstance(value, dict):
                assert isinstance(error_from_dict(value), WattleError)


class SettingsValues(Target):
    """What a setting's value may be as a file, a variable or a flag gives it: a value, or what is wrong with it."""

    name = "values"

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.readers: dict[str, Callable[[object], object]] = {
            name: value
            for name, value in vars(settings_values).items()
            if name.startswith("as_") and name not in ("as_name", "as_file")
        }
        self.names = sorted(self.readers)
        seeds = [
            "tcp/192.0.2.1:7447", "tcp/a:1,tls/b:2", '["tcp/a:1"]', '{"a":"b"}', "k=v,l=w", "~/x", "1.5", "node-1",
            "unixsock-stream/" + "x" * 107, "udp/[::1]:1#a=b?c=d",
        ]  # fmt: skip
        self.mutator = Mutator(random, [*seeds, *WORDS])

    def make(self) -> Any:
        return (self.names[self.mutator.below(len(self.names))], self.mutator.some_text(4))

    def check(self, given: Any) -> str:
        reader, text = given
        if reader not in self.readers:
            return "no reader"
        try:
            value = self.readers[reader](text)
        except ValueError as error:
            if type(error) is not ValueError or len(str(error)) < 6:
                raise TypeError(f"{type(error).__name__}, or no message: {error}") from error
            return "refused"
        if reader == "as_path":
            assert PurePosixPath(str(value)).is_absolute(), "a path that is not absolute"
        return "accepted"


class SettingsFiles(Target):
    """Whole settings: a TOML file, and the same values as flags."""

    name = "settings"
    batch = 200

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        files = [path.read_text() for path in sorted((corpus.ROOT / "config").glob("*.toml"))]
        lines = "\n".join(files).splitlines()
        live = [line.removeprefix("#").strip() for line in lines if "=" in line and len(line) < 100]
        self.live = live
        self.mutator = Mutator(random, [*files, *live])
        self.kinds = dict(KINDS)
        self.roles = sorted(self.kinds)

    @cached_property
    def _file(self) -> Path:
        folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        handle, name = tempfile.mkstemp(prefix="wtl-fuzz-", suffix=".toml", dir=folder)
        os.close(handle)
        return Path(name)

    @contextlib.contextmanager
    def world(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._file.unlink(missing_ok=True)
            del self._file

    def make(self) -> Any:
        below = self.mutator.below
        role = self.roles[below(len(self.roles))]
        if self.random.random() < 0.3:
            return (role, self.mutator.some_bytes())
        lines = [self.live[below(len(self.live))] for _ in range(1 + below(3))]
        changed = below(len(lines))
        key = lines[changed].partition("=")[0]
        lines[changed] = (
            f"{key}= {VALUES[below(len(VALUES))]}" if below(2) else f"{key}= {json.dumps(WORDS[below(len(WORDS))])}"
        )
        return (role, "\n".join(lines).encode("utf-8", "surrogatepass"))

    def check(self, given: Any) -> str:
        role, data = given
        if role not in self.kinds:
            return "no role"
        self._file.write_bytes(data)
        try:
            load_settings(self.kinds[role], config=self._file)
        except SettingsError as error:
            json.dumps(error.as_dict())
            return "refused" if len(error.message) > 10 else "no message"
        return "accepted"
