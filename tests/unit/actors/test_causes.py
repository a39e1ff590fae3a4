"""What is the matter with a VM, by the errors that were seen of it."""

from __future__ import annotations

import pytest

from actors.errors import cause_of
from vmm.errors import (
    AgentProtocolError,
    AgentUnreachableError,
    QmpConnectionError,
    VmExitedError,
    VmmError,
)
from vmm.words.facts import LossCause

DEAD = VmExitedError(vm_id="vm-1", reason="killed by signal 9")
MUTE = AgentUnreachableError("no answer")
FAULTY = AgentProtocolError("nonsense")


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (DEAD, LossCause.DEAD),
        (MUTE, LossCause.MUTE),
        (QmpConnectionError("closed"), LossCause.MUTE),
        (FAULTY, LossCause.FAULTY),
        (VmmError("anything else"), LossCause.FAULTY),
        (ExceptionGroup("", [MUTE, DEAD]), LossCause.DEAD),
        (ExceptionGroup("", [FAULTY, ExceptionGroup("", [MUTE])]), LossCause.MUTE),
    ],
)
def test_of_several_the_one_that_says_most_counts(error: Exception, cause: LossCause) -> None:
    assert cause_of(error) is cause
