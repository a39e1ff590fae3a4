"""An error's description for status and logs, its evidence, and the cause of the loss that it reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from vmm.errors import AgentUnreachableError, AttachError, QmpConnectionError, VmExitedError, VmSilentError
from vmm.words.facts import LossCause


def describe(error: BaseException, *, say: Callable[[BaseException], str] = str) -> str:
    """An error in one line: groups are flattened, and an error without text is named by its type.

    `say` makes the text of one error. Blanks within a line stay: some of Kata's messages depend on them.
    """
    return "; ".join(_in_one_line(say(leaf)) or type(leaf).__name__ for leaf in _leaves(error))


def evidence(error: BaseException) -> str:
    """The notes of an error, of the errors in a group, and of their causes, in that order."""
    notes: list[str] = []
    for leaf in _leaves(error):
        link: BaseException | None = leaf
        while link is not None:
            notes.extend(note for note in getattr(link, "__notes__", ()) if note not in notes)
            link = link.__cause__
    return "\n".join(notes)


def cause_of(error: BaseException) -> LossCause:
    """The cause of a VM's loss; of several errors the most definite one counts."""
    leaves = tuple(_leaves(error))
    if any(isinstance(leaf, VmExitedError | AttachError) for leaf in leaves):
        return LossCause.DEAD
    if any(isinstance(leaf, AgentUnreachableError | VmSilentError | QmpConnectionError) for leaf in leaves):
        return LossCause.MUTE
    return LossCause.FAULTY


def _in_one_line(text: str) -> str:
    return " ".join(line for line in map(str.strip, text.splitlines()) if line)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _leaves(member)
    else:
        yield error
