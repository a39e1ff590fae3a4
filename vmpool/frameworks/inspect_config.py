"""What a task may say about the VMs of its samples."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, model_validator


class VmpoolSandboxConfig(BaseModel):  # type: ignore[misc] # Any where there is no pydantic
    """Which VM a sample gets, and as whom it is used. Nothing is required."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: str = ""
    """Empty for the service's default."""
    socket: str | None = None
    """The service's; None for VMPOOL_SOCKET, or the usual places."""
    standalone: bool = False
    """The evaluation starts a service of its own, which ends with it. Its VMs are as `vcpus` and `memory_mib` say."""
    environment: dict[str, str] = {}
    """For every command in the VM."""
    vcpus: int | None = None
    memory_mib: int | None = None
    user: str = ""
    """Who runs commands and has files unless a call names somebody; empty for root."""
    working_directory: str = ""
    """Where commands run and relative paths begin: absolute, made if it is missing. Empty for the user's home."""
    timeout_s: float = 600.0
    """How long a sample waits for its VM."""
    keep_s: float | None = None
    """A VM ends so many seconds after its sample began, in place of with the process that evaluates: with
    `--no-sandbox-cleanup` it is there afterwards, until then or until `inspect sandbox cleanup vmpool`."""

    def __hash__(self) -> int:
        """inspect-ai keeps configurations in sets."""
        return hash(self.model_dump_json())

    @model_validator(mode="after")  # type: ignore[untyped-decorator] # idem
    def _check(self) -> VmpoolSandboxConfig:
        if self.standalone and (self.profile or self.socket is not None or self.keep_s is not None):
            raise ValueError("standalone: the service is the evaluation's own; leave out profile, socket and keep_s")
        if self.working_directory and not self.working_directory.startswith("/"):
            raise ValueError(f"working_directory: {self.working_directory!r} is not absolute")
        return self


def resolved(config: BaseModel | str | None) -> VmpoolSandboxConfig:
    """As inspect-ai hands it over: a str is the name of a profile. Raises TypeError."""
    match config:
        case None:
            return VmpoolSandboxConfig()
        case str():
            return VmpoolSandboxConfig(profile=config)
        case VmpoolSandboxConfig():
            return config
    raise TypeError(
        f"sandbox configuration: a {type(config).__name__}; give a VmpoolSandboxConfig, or a profile's name"
    )
