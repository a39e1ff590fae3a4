"""Makes the SDK's other faces, for trio and for threads, of the asyncio one, which is written by hand.

    python scripts/faces.py            writes them
    python scripts/faces.py --check    changes nothing; fails if what is checked in is not what this writes

A face has the classes of its sources, with their signatures and docstrings, and in each method a call of the same
method of the asyncio object. What the faces have of their own is in vmpool/client/from_trio.py and from_threads.py.
"""

from __future__ import annotations

import ast
import difflib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]

CALLS = ("vmpool.client.admin", "vmpool.client.remote", "vmpool.client.sdk")
POOL = (
    "vmpool.aio.processes",
    "vmpool.aio.files",
    "vmpool.aio.ports",
    "vmpool.aio.vm",
    "vmpool.aio.pool",
    "vmpool.aio.standalone",
)


@dataclass(frozen=True)
class Face:
    """One file to write."""

    path: str
    title: str
    sources: tuple[str, ...]
    blocking: bool = False
    without: frozenset[str] = frozenset()
    given: dict[str, str] = field(default_factory=dict)
    """Faces that another file has: class name to module."""


GIVEN_CALLS = dict.fromkeys(
    ("AdminCalls", "RemoteCommand", "PoolWatch", "ServiceCalls", "Client"), "vmpool.client.on_trio"
)

FACES = (
    Face(
        path="vmpool/client/on_trio.py",
        title="The service's calls, and a running command, for trio programs.",
        sources=CALLS,
    ),
    Face(
        path="vmpool/on_trio.py",
        title="Pool, Vm and what belongs to them, for trio programs; `vmpool` has these names.",
        sources=POOL,
        given=GIVEN_CALLS,
    ),
    Face(
        path="vmpool/sync.py",
        title="The SDK for plain programs and threads: calls block.",
        sources=(*CALLS, *POOL),
        blocking=True,
        without=frozenset({"Client", "open_client"}),
    ),
)

SYNC_DOC = """
    with vmpool.sync.connect() as pool, pool.vm("default") as vm:
        print(vm.run("uname -a").stdout)

What is opened, a connection, a VM, a forward, is closed at the end of its block, or by `close()`. Any number of threads
may use one connection. Callbacks, and the pieces of an iterable that is written, run in the thread that calls. Ctrl-C
ends the call that waits, and what it had begun.
"""

WORDS = {
    "errors": [
        "CallError",
        "CallTimeoutError",
        "ClientError",
        "CommandError",
        "GuestConnectionRefusedError",
        "GuestError",
        "GuestFileExistsError",
        "GuestFileNotFoundError",
        "GuestIsADirectoryError",
        "GuestNotADirectoryError",
        "GuestPermissionError",
        "GuestProcessNotFoundError",
        "GuestTimeoutError",
        "OutputTooLargeError",
        "ServiceUnavailableError",
        "UnsafeTreeError",
    ],
    "kinds": [
        "CircuitState",
        "EndReason",
        "FileChangeKind",
        "FileKind",
        "LeaseChangeKind",
        "ProducerKind",
        "ProfileChangeKind",
        "StopReason",
        "VmState",
    ],
    "records": [
        "AcquiredVm",
        "AcquireTimings",
        "Change",
        "CommandExit",
        "CompletedCommand",
        "ConfinementLayer",
        "FileChange",
        "FileInfo",
        "Guest",
        "KeptOutput",
        "LeaseChange",
        "LeaseStatus",
        "Match",
        "Mismatch",
        "Output",
        "OutputStream",
        "PoolCounters",
        "ProcessInfo",
        "ProcessOutput",
        "ProducerStatus",
        "ProfileChange",
        "ProfileStatus",
        "ServiceStatus",
        "Snapshot",
        "TreeSummary",
        "VmChange",
        "VmConfig",
        "VmMetrics",
    ],
    "requests": ["GuestFile", "OnEmpty", "Terminal", "Wishes", "WriteMode"],
}
"""Records and errors that `vmpool.sync` gives too."""

PARAMETERS_OF_CALLBACKS = ("OutputCallback", "Progress")
PARAMETERS_OF_CHUNKS = ("Chunks",)


@dataclass
class Source:
    module: str
    tree: ast.Module
    imports: dict[str, str]
    """Name to module."""
    classes: dict[str, ast.ClassDef]
    functions: dict[str, ast.FunctionDef]


def read(module: str) -> Source:
    tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text())
    imports: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            imports |= {alias.asname or alias.name: node.module for alias in node.names}
    classes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef) and is_faced(n)}
    functions = {
        n.name: n
        for n in tree.body
        if isinstance(n, ast.FunctionDef) and not n.name.startswith("_") and is_opening(n.returns)
    }
    return Source(module=module, tree=tree, imports=imports, classes=classes, functions=functions)


def is_faced(node: ast.ClassDef) -> bool:
    return not node.name.startswith("_") and not node.decorator_list


def is_opening(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "Opening"


class Writer:
    def __init__(self, face: Face) -> None:
        self.face = face
        self.sources = [read(module) for module in face.sources]
        self.faced = {name for source in self.sources for name in source.classes} - face.without | set(face.given)
        self.used: dict[str, str] = {}
        """Names to import: name to module."""
        self.renamed: dict[str, tuple[str, str]] = {}
        """Names to import under another one: new name to module and name."""
        self.lines: list[str] = []

    def write(self) -> str:
        for source in self.sources:
            for name, node in source.classes.items():
                if name not in self.face.without:
                    self.lines += ["", "", *self.class_(source, node)]
        for source in self.sources:
            for name, function in source.functions.items():
                if name not in self.face.without and self.is_connecting(function):
                    self.lines += ["", "", *self.connecting(source, function)]
        self.lines += self.aliases()
        bridge = "vmpool.client.from_threads" if self.face.blocking else "vmpool.client.from_trio"
        own = (
            ("BlockingResource", "ThreadConnection", "connecting")
            if self.face.blocking
            else ("Opening", "Resource", "TrioConnection", "connecting")
        )
        text = "\n".join(self.lines)
        if self.face.blocking:
            for module, names in WORDS.items():
                self.used |= dict.fromkeys(names, f"vmpool.client.{module}")
            public = {
                *self.faced,
                *(each for names in WORDS.values() for each in names),
                "Process",
                "connect",
                "standalone",
            }
            text += f"\n\n__all__ = {sorted(public - {'Ports', 'AdminCalls', 'ServiceCalls', 'RemoteCommand'})!r}\n"
        for name in own:
            if re.search(rf"\b{name}\b", text):
                self.used[name] = bridge
        head = [
            f'"""{self.face.title}',
            *(SYNC_DOC.splitlines() if self.face.blocking else []),
            "",
            "Made by scripts/faces.py of the asyncio face, which is where to look, and what to change.",
            '"""',
            "",
            "from __future__ import annotations",
            "",
            *sorted(f"from {module} import {name}" for name, module in self.used.items()),
            *sorted(f"from {module} import {name} as {new}" for new, (module, name) in self.renamed.items()),
        ]
        return polished("\n".join([*head, text, ""]), self.face.path)

    def aliases(self) -> list[str]:
        """`Process = RemoteCommand`, where the second name is given here."""
        found = []
        for source in self.sources:
            for node in source.tree.body:
                match node:
                    case ast.Assign(targets=[ast.Name(id=new)], value=ast.Name(id=old)) if old in self.faced:
                        found += ["", f"{new} = {old}"]
        return found

    def is_connecting(self, function: ast.FunctionDef) -> bool:
        assert isinstance(function.returns, ast.Subscript)
        return ast.unparse(function.returns.slice) in ("Pool", "Client")

    def class_(self, source: Source, node: ast.ClassDef) -> Iterator[str]:
        core = self.core(source.module, node.name)
        bases = [self.base(base) for base in node.bases]
        yield f"class {node.name}({', '.join(bases)}):" if bases else f"class {node.name}:"
        yield from self.doc(node, "    ")
        yield ""
        yield f"    _core: {core}"
        yield ""
        connection = "ThreadConnection" if self.face.blocking else "TrioConnection"
        yield f"    def __init__(self, connection: {connection}, core: {core}) -> None:"
        yield "        self._connection = connection"
        yield "        self._core = core"
        overloaded = False
        for member in node.body:
            if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
                decorators = [ast.unparse(each) for each in member.decorator_list]
                if "internal" in decorators or not self.is_public(member.name):
                    continue
                yield ""
                if "overload" in decorators:
                    overloaded = True
                    self.used["overload"] = "typing"
                    yield "    @overload"
                    yield f"    {self.signature(source, member)} ..."
                    continue
                yield from self.method(source, member, property_="property" in decorators, overloaded=overloaded)
                overloaded = False

    def base(self, base: ast.expr) -> str:
        name = ast.unparse(base)
        if name in self.face.given:
            self.used[name] = self.face.given[name]
        if name == "Resource" and self.face.blocking:
            return "BlockingResource"
        return name

    def is_public(self, name: str) -> bool:
        return not name.startswith("_") or name in ("__aiter__", "__anext__", "__str__", "__repr__")

    def method(
        self, source: Source, node: ast.FunctionDef | ast.AsyncFunctionDef, *, property_: bool, overloaded: bool
    ) -> Iterator[str]:
        if node.name in ("__str__", "__repr__"):
            yield f"    def {node.name}(self) -> str:"
            yield f"        return {node.name.strip('_')}(self._core)"
            return
        if node.name == "__aiter__":
            yield f"    def {'__iter__' if self.face.blocking else '__aiter__'}(self) -> {ast.unparse(node.returns)}:"
            yield "        return self"
            return
        if property_:
            yield "    @property"
        yield f"    {self.signature(source, node)}"
        yield from self.doc(node, "        ")
        await_ = "" if self.face.blocking else "await "
        if node.name == "__anext__":
            yield f"        return {await_}self._connection.step(self._core)"
            return
        target = f"self._core.{node.name}"
        if property_:
            yield f"        return {self.wrapped(source, node.returns, target)}"
            return
        arguments = self.arguments(node)
        if overloaded:
            self.used["Any"] = "typing"
            yield f"        {node.name}: Any = {target}  # the types of its overloads are those above"
            target = node.name
        if isinstance(node, ast.AsyncFunctionDef):
            call = f"{await_}self._connection.run({', '.join([target, *arguments])})"
            if ast.unparse(node.returns) == "None":
                yield f"        {call}"
            else:
                yield f"        return {self.wrapped(source, node.returns, call)}"
        elif is_opening(node.returns):
            assert isinstance(node.returns, ast.Subscript)
            face = self.facing(source, node.returns.slice)
            opening = "open" if self.face.blocking else "opening"
            yield f"        return self._connection.{opening}({target}({', '.join(arguments)}), {face})"
        else:
            call = f"{target}({', '.join(arguments)})"
            yield f"        return {self.wrapped(source, node.returns, call)}"

    def connecting(self, source: Source, node: ast.FunctionDef) -> Iterator[str]:
        assert isinstance(node.returns, ast.Subscript)
        result = ast.unparse(node.returns.slice)
        yield self.signature(source, node)
        yield from self.doc(node, "    ")
        core = self.core(source.module, node.name)
        opening = f"{core}({', '.join(self.arguments(node))})"
        if self.face.blocking:
            yield f"    return connecting({opening}, {result})"
        else:
            self.used["connection_of"] = "vmpool.client.sdk"
            yield f"    return connecting({opening}, connection_of, {result})"

    def arguments(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
        plain = [argument for argument in node.args.args if argument.arg != "self"]
        return [
            *(self.argument(each) for each in plain),
            *(f"{each.arg}={self.argument(each)}" for each in node.args.kwonlyargs),
        ]

    def argument(self, argument: ast.arg) -> str:
        names = {each.id for each in ast.walk(argument.annotation or ast.Tuple()) if isinstance(each, ast.Name)}
        if names & set(PARAMETERS_OF_CALLBACKS):
            return f"self._connection.callback({argument.arg})"
        if names & set(PARAMETERS_OF_CHUNKS):
            return f"self._connection.chunks({argument.arg})"
        return argument.arg

    def wrapped(self, source: Source, node: ast.expr | None, value: str) -> str:
        """The face of a value."""
        assert node is not None
        match node:
            case ast.Name(id=name) if name in self.faced:
                self.note(source, name)
                return f"{name}(self._connection, {value})"
            case ast.Subscript(value=ast.Name(id="AsyncIterator")):
                return f"self._connection.iterator({value})"
            case _:
                return value

    def facing(self, source: Source, node: ast.expr) -> str:
        """A function from a value to its face."""
        wrapped = self.wrapped(source, node, "opened")
        return f"lambda opened: {wrapped}"

    def signature(self, source: Source, node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
        is_async = isinstance(node, ast.AsyncFunctionDef) and not self.face.blocking
        name = "__next__" if node.name == "__anext__" and self.face.blocking else node.name
        arguments = self.renamed_types(source, ast.unparse(node.args))
        returns = self.renamed_types(source, ast.unparse(node.returns))
        return f"{'async ' if is_async else ''}def {name}({arguments}) -> {returns}:"

    def renamed_types(self, source: Source, text: str) -> str:
        if self.face.blocking:
            if match := re.fullmatch(r"Opening\[(.*)\]", text):
                text = match[1]
            text = re.sub(r"\bAsyncIterator\b", "Iterator", text)
            text = re.sub(r"\bChunks\b", "BlockingChunks", text)
        for name in re.findall(r"[A-Za-z_]\w*", text):
            self.note(source, name)
        return text

    def note(self, source: Source, name: str) -> None:
        """Has a name imported, if it is one of another module."""
        if name == "Iterator":
            self.used[name] = "collections.abc"
        elif name == "BlockingChunks":
            self.used[name] = "vmpool.client.chunks"
        elif name in self.face.given:
            self.used[name] = self.face.given[name]
        elif name in self.faced or name in ("Opening", "Resource"):
            return
        elif name in source.imports:
            self.used[name] = source.imports[name]
        elif any(
            isinstance(node, ast.Assign | ast.AnnAssign) and name in ast.unparse(node).split(" ", 1)[0].rstrip(":")
            for node in source.tree.body
        ) and re.fullmatch(r"[A-Z]\w+", name):
            self.used[name] = source.module

    def core(self, module: str, name: str) -> str:
        new = f"Aio{name}" if name[0].isupper() else f"aio_{name}"
        self.renamed[new] = (module, name)
        return new

    def doc(self, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, indent: str) -> list[str]:
        text = ast.get_docstring(node, clean=True)
        if text is None:
            return []
        lines = self.spoken(text).splitlines()
        quoted = [f'{indent}r"""{lines[0]}' if "\\" in text else f'{indent}"""{lines[0]}']
        quoted += [f"{indent}{line}" if line else "" for line in lines[1:]]
        if len(lines) == 1:
            return [f'{quoted[0]}"""']
        return [*quoted, f'{indent}"""']

    def spoken(self, text: str) -> str:
        if not self.face.blocking:
            return text
        for old, new in (
            ("If cancelled, it", "If interrupted, it"),
            ("If cancelled,", "If interrupted,"),
            ("if it is cancelled", "if it is interrupted"),
            ("if this is cancelled", "if this is interrupted"),
            ("if the block is cancelled", "if the block is interrupted"),
            ("One task may send while another one receives", "One thread may send while another one receives"),
            ("async with ", "with "),
            ("aclose", "close"),
        ):
            text = text.replace(old, new)
        return text


def polished(text: str, path: str) -> str:
    for command in (
        ["check", "--fix-only", "--quiet", "--select", "I"],
        ["format", "--quiet"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--stdin-filename", path, "-"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        if done.returncode:
            raise SystemExit(f"{path}: {done.stderr}\n{text}")
        text = done.stdout
    return text


def main() -> int:
    stale = 0
    for face in FACES:
        path = ROOT / face.path
        fresh = Writer(face).write()
        old = path.read_text() if path.exists() else ""
        if fresh == old:
            continue
        if sys.argv[1:] == ["--check"]:
            sys.stdout.writelines(
                difflib.unified_diff(old.splitlines(True), fresh.splitlines(True), face.path, "what it should be")
            )
            stale = 1
        else:
            path.write_text(fresh)
    if stale:
        sys.stderr.write("the SDK's faces are stale: run scripts/generate and commit the result\n")
    return stale


if __name__ == "__main__":
    raise SystemExit(main())
