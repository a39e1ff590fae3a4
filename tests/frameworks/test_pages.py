"""The documentation's programs for inspect-ai and deepagents, with models that say what they are told to."""

from __future__ import annotations

import gc
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from inspect_ai import Task
from inspect_ai import eval as evaluate
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, get_model
from inspect_ai.solver import generate, use_tools
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from tests.running import RunningService, running_service
from vmm.initramfs.image import GuestImage

pytestmark = pytest.mark.qemu

PAGES: Final = Path(__file__).parents[2] / "docs/tasks"
MODEL: Final = '"anthropic:claude-sonnet-4-5"'

CONFIG: Final = """
[profiles.default]
size = 1
memory_mib = 384
accelerator = "tcg"
"""


def programs(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (PAGES / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def executed(program: str, name: str, directory: Path, **names: Any) -> dict[str, Any]:
    """What the program leaves defined. It is in a file, where frameworks look for its text."""
    path = directory / f"{name}.py"
    path.write_text(program, encoding="utf-8")
    namespace = {"__name__": name, "__file__": str(path), **names}
    exec(compile(program, path, "exec"), namespace)
    return namespace


@pytest.fixture(scope="module")
def service(guest_image: GuestImage) -> Iterator[RunningService]:
    with running_service(CONFIG, image_directory=guest_image.kernel.parent) as service:
        yield service


@pytest.fixture(autouse=True)
def surroundings(service: RunningService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frameworks keep caches and logs of their own."""
    monkeypatch.setenv("VMPOOL_SOCKET", str(service.socket_path))
    for variable in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))


def scripted(command: str) -> Any:
    """A model that has a tool run this, and repeats what it is told."""

    def answer(messages: list[Any], *_: Any) -> ModelOutput:
        if messages[-1].role == "tool":
            return ModelOutput.from_content("mockllm/model", messages[-1].text)
        return ModelOutput.for_tool_call("mockllm/model", "shell", {"command": command})

    async def length(text: str) -> int:
        return len(text)

    model = get_model("mockllm/model", custom_outputs=answer, memoize=False)
    model.api.count_text_tokens = length  # inspect-ai's own way needs a file from the network
    return model


@pytest.mark.filterwarnings("ignore:.*MemoryObject:pytest.PytestUnraisableExceptionWarning")
class TestEvaluations:
    @pytest.fixture(autouse=True)
    def collected(self) -> Iterator[None]:
        """inspect-ai leaves streams open, which complain when they are collected: here, not in another test."""
        yield
        gc.collect()

    def test_a_task(self, tmp_path: Path) -> None:
        task = executed(programs("evaluations.md")[0], "arithmetic", tmp_path)["arithmetic"]()
        (log,) = evaluate(
            task, model=scripted("python3 /task/program.py; whoami"), log_dir=str(tmp_path / "logs"), display="none"
        )
        assert log.status == "success", log.error
        assert log.results.scores[0].metrics["accuracy"].value == 1
        assert log.samples[0].output.completion == "42\nroot\n"

    def test_a_configuration(self, tmp_path: Path, vm_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """With a service of its own, where no other is."""
        monkeypatch.setenv("VMPOOL_SOCKET", str(tmp_path / "none"))
        monkeypatch.setenv("TMPDIR", str(vm_home))
        monkeypatch.setattr(tempfile, "tempdir", None)
        arithmetic, configuration = programs("evaluations.md")
        shell = executed(arithmetic, "arithmetic", tmp_path)["shell"]
        task = Task(
            dataset=[Sample(input="?", target="user", files={"where": "here"})],
            solver=[use_tools(shell()), generate()],
            sandbox=executed(configuration, "configuration", tmp_path)["small_and_unprivileged"],
        )
        (log,) = evaluate(
            task,
            model=scripted("whoami; pwd; cat where; echo; echo $LANG"),
            log_dir=str(tmp_path / "logs"),
            display="none",
        )
        assert log.status == "success", log.error
        assert log.samples[0].output.completion == "user\n/home/user/task\nhere\nC.UTF-8\n"
        assert list(vm_home.iterdir()) == []


class Model(GenericFakeChatModel):  # type: ignore[misc] # Any where there is no langchain
    """Says its messages one after the other, whatever tools there are."""

    def bind_tools(self, tools: Sequence[Any], **options: Any) -> Model:
        return self


def script() -> Model:
    """Writes a program, runs it, and is done."""
    write = {"file_path": "/app/answer.py", "content": "print(6 * 7)\n"}
    calls = [("write_file", write), ("execute", {"command": "python3 /app/answer.py"})]
    asked = [
        AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": f"call-{number}"}])
        for number, (name, arguments) in enumerate(calls)
    ]
    return Model(messages=iter([*asked, AIMessage("It is 42.")]))


@pytest.mark.parametrize("number", [0, 1], ids=["invoked", "awaited"])
def test_an_agent(tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int) -> None:
    program = programs("agents-code.md")[number]
    assert program.count(MODEL) == 1
    executed(program.replace(MODEL, "MODEL"), f"agent{number}", tmp_path, MODEL=script())
    answer, *written = capsys.readouterr().out.splitlines()
    assert answer == "It is 42."
    assert written == (["print(6 * 7)", ""] if number == 0 else [])
