"""inspect-ai's own check of a sandbox passes whole."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from inspect_ai.util._sandbox.self_check import *  # noqa: F403 - its tests

from tests.running import RunningService
from vmpool.frameworks.inspect_config import VmpoolSandboxConfig
from vmpool.frameworks.inspect_sandbox import VmpoolSandboxEnvironment

ADDUSER = """\
#!/bin/sh
# As Debian's, as far as the check asks for it: adduser --comment TEXT --disabled-password NAME
[ "$1" = --help ] && exec echo "adduser [OPTION]... NAME"
for name; do :; done
mkdir -p "/home/$name"
chown 2000:2000 "/home/$name"
echo "$name:x:2000:2000::/home/$name:/bin/sh" >> /etc/passwd
echo "$name:x:2000:" >> /etc/group
"""


@pytest.fixture(scope="module")
async def sandbox_env(service: RunningService) -> AsyncIterator[VmpoolSandboxEnvironment]:
    """A user whom the kernel refuses something: root may read what nobody may."""
    config = VmpoolSandboxConfig(socket=str(service.socket_path), user="user")
    environments = await VmpoolSandboxEnvironment.sample_init("self_check", config, {})
    sandbox = environments["default"]
    await sandbox.vm.files.write("/usr/local/bin/adduser", ADDUSER, mode=0o755)
    yield sandbox
    await VmpoolSandboxEnvironment.sample_cleanup("self_check", config, environments, interrupted=False)
