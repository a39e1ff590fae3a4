"""Where a fresh root gets its packages from: as this host does, whatever that is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

INDEX_TARGETS: Final = ("apt-get", "indextargets", "--format", "$(IDENTIFIER) $(REPO_URI) $(CODENAME) $(COMPONENT)")
"""Prints what `sources` reads."""
PASSED_ON: Final = frozenset((
    *("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"),
    *("pip_index_url", "pip_extra_index_url", "pip_trusted_host", "pip_proxy", "pip_default_timeout", "pip_retries"),
    *("pip_cert", "requests_ca_bundle", "ssl_cert_file"),
))  # fmt: skip
"""Environment variables, in lower case, that say how an index or a mirror is reached."""
_APT_SETTING: Final = re.compile(r'Acquire::(?:https?::.*Proxy\S*|Check-\S+|Retries) ".+";')


def sources(suite: str, *, targets: str, codename: str) -> list[str]:
    """Lines of sources.list for a suite: those of this host's with the suite's name in place of the host's.

    The first is the main archive's. Without any, this host is not Debian, or has no apt sources.
    """
    found: dict[str, str] = {}
    for line in targets.splitlines():
        identifier, uri, release, component = line.split(" ")
        part = release.removeprefix(codename)
        if (identifier, component) == ("Packages", "main") and release.startswith(codename) and part[:1] in ("", "-"):
            found.setdefault(part, uri)
    return [source(uri, suite + part) for part, uri in sorted(found.items())] if "" in found else []


def source(uri: str, suite: str) -> str:
    return f"deb {uri} {suite} main"


def apt_settings(dump: str) -> list[str]:
    """What of `apt-config dump` says how mirrors are reached, and how much is asked of their lists' age."""
    return [line for line in dump.splitlines() if _APT_SETTING.fullmatch(line)]


def passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.lower() in PASSED_ON}
