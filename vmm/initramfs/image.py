"""Builds and loads guests: Debian's cloud kernel, and an initramfs with busybox and an agent.

The default guest has vmpool's own agent and Python; the other has qemu-ga, and perl for reseeding.

An image is a directory with `vmlinuz`, `initrd` and, written last, `manifest.json`. Builds are reproducible.

The initramfs is not compressed. QEMU hands 20 MiB to the guest as fast as 7, and unpacking costs more than it saves:
seconds from QEMU's start to the agent's first answer, median of 3, TCG, 1 CPU, 256 MiB:

    none  20.0 MiB  2.37     lz4 -9   9.3 MiB  2.44     zstd -19  6.5 MiB  2.55     gzip -9  8.2 MiB  2.60
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from pathlib import Path

import attrs
import trio

from vmm.initramfs import contents, cpio, debian, init, kernel
from vmm.initramfs.errors import ImageError
from vmm.initramfs.packages import packages_of
from vmm.words.machines import AgentKind

_BUILDER_VERSION = 1
"""Part of the inputs; to be raised when the same inputs produce different bytes."""

_SOURCES = ("init.py", "compile_guest.py", "contents.py", "cpio.py", "kernel.py")


@attrs.frozen(kw_only=True)
class GuestImage:
    """A matching kernel and initramfs, with the inputs of their build."""

    kernel: Path
    initrd: Path
    kernel_release: str
    kernel_sha256: str
    initrd_sha256: str
    packages: Mapping[str, str]
    """Versions by name."""
    inputs_sha256: str
    """Hash of the package versions, the agent's source and the builder."""


@attrs.frozen(kw_only=True)
class ImageProgress:
    """The progress of a build."""

    stage: str
    """ "resolve", "download", "extract", "compile", "assemble" or "done"."""
    fraction: float
    """Of this stage, 0 to 1."""


KERNEL_PARAMETERS = "cryptomgr.notests"
"""Recommended for this kernel: its crypto self-tests take 0.3 s of a 2.4 s boot under TCG."""

Progress = Callable[[ImageProgress], None]


async def build_image(directory: Path, *, progress: Progress, agent: AgentKind = AgentKind.BUILTIN) -> GuestImage:
    """Builds the image in `directory`, unless the existing one is up to date; then nothing is downloaded or written.

    `agent` is the agent in the guest, BUILTIN or QGA; a directory holds one image.

    Packages are kept in `directory/packages`. Takes tens of seconds. Raises ImageError. Cancellation leaves the
    previous image or none, never a partial one. `progress` is called in the caller's trio thread.
    """
    progress(ImageProgress(stage="resolve", fraction=0.0))
    release, packages = await packages_of(agent)
    inputs = _hash_inputs(packages, agent)
    present = await trio.to_thread.run_sync(_load_if_current, directory, inputs)
    if present is not None:
        progress(ImageProgress(stage="done", fraction=1.0))
        return present

    def stage(name: str) -> Callable[[float], None]:
        return lambda fraction: progress(ImageProgress(stage=name, fraction=fraction))

    files = await debian.fetch(packages, directory / "packages", on_done=stage("download"))
    work = Path(await trio.to_thread.run_sync(lambda: tempfile.mkdtemp(prefix=".build-", dir=directory)))
    try:
        root = work / "root"
        for count, file in enumerate(files):
            stage("extract")(count / len(files))
            await debian.extract(file, root)
        if agent is AgentKind.QGA:
            entries = contents.qga(root)
        else:
            python = next(p.name for p in packages if p.name.startswith("python")).removesuffix("-minimal")
            stage("compile")(0.0)
            await _compile(root, python, work / "bytecode")
            entries = contents.builtin_agent(root, python, work / "bytecode")
        applets = await _applets(root)
        stage("assemble")(0.0)
        manifest = await trio.to_thread.run_sync(_assemble, work, release, applets, entries, agent)
        manifest |= {
            "packages": {package.name: package.version for package in packages},
            "inputs_sha256": inputs,
        }
        await trio.to_thread.run_sync(_publish, work, directory, manifest)
        await trio.to_thread.run_sync(_remove_others, directory / "packages", files)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(lambda: shutil.rmtree(work, ignore_errors=True))
    image = await trio.to_thread.run_sync(load_image, directory)
    progress(ImageProgress(stage="done", fraction=1.0))
    return image


def load_image(directory: Path) -> GuestImage:
    """Loads the image in `directory`. Reads the manifest only, not kernel and initramfs. Raises ImageError."""
    remedy = f"build it with `vmpool image build --directory {directory}`"
    try:
        manifest = json.loads((directory / "manifest.json").read_bytes())
        image = GuestImage(kernel=directory / "vmlinuz", initrd=directory / "initrd", **manifest)
    except FileNotFoundError as error:
        raise ImageError(stage="load", reason=f"{directory} contains no image", remedy=remedy) from error
    except (OSError, ValueError, TypeError) as error:
        reason = f"the manifest in {directory} is unusable: {error}"
        raise ImageError(stage="load", reason=reason, remedy=remedy) from error
    for path in (image.kernel, image.initrd):
        if not path.is_file():
            raise ImageError(stage="load", reason=f"{path} is missing", remedy=remedy)
    return image


def verify_image(image: GuestImage) -> None:
    """Reads both files in full, some 35 MB. Raises ImageError if one differs from the build's."""
    for path, expected in ((image.kernel, image.kernel_sha256), (image.initrd, image.initrd_sha256)):
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise ImageError(
                stage="load",
                reason=f"{path} differs from the file that was built",
                remedy=f"rebuild the image with `vmpool image build --directory {path.parent}`",
            )


def _hash_inputs(packages: list[debian.Package], agent: AgentKind) -> str:
    digest = hashlib.sha256(f"vmpool image {_BUILDER_VERSION} {agent.value}\n".encode())
    for package in packages:
        digest.update(f"{package.name} {package.version}\n".encode())
    guest = resources.files("vmm.initramfs")
    for name in _SOURCES:
        digest.update(guest.joinpath(name).read_bytes() + b"\0")
    for name, source in _agent_source().items():
        digest.update(f"{name}\0".encode() + source + b"\0")
    return digest.hexdigest()


def _agent_source() -> dict[str, bytes]:
    agent = resources.files("vmm.guest.agent")
    files = (entry for entry in agent.iterdir() if entry.name.endswith(".py"))
    return {entry.name: entry.read_bytes() for entry in sorted(files, key=lambda entry: entry.name)}


def _load_if_current(directory: Path, inputs: str) -> GuestImage | None:
    try:
        image = load_image(directory)
    except ImageError:
        return None
    try:
        verify_image(image)
    except ImageError:
        return None
    return image if image.inputs_sha256 == inputs else None


async def _compile(root: Path, python: str, target: Path) -> None:
    library = root / "usr/lib" / python
    package = library / "vmpool_agent"

    def add_agent() -> list[str]:
        package.mkdir()
        for name, source in _agent_source().items():
            (package / name).write_bytes(source)
        return [str(path) for path in contents.standard_library(root, python)]

    modules = await trio.to_thread.run_sync(add_agent)
    script = resources.files("vmm.initramfs").joinpath("compile_guest.py").read_text()
    await _run_guest_python(
        root,
        python,
        ["-c", script, str(library), str(target), f"/usr/lib/{python}"],
        stdin="\n".join(modules).encode(),
    )


async def _run_guest_python(root: Path, python: str, arguments: list[str], *, stdin: bytes) -> None:
    libraries = [str(root / path) for path in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")]
    loader = next(path for directory in libraries if (path := Path(directory) / "ld-linux-x86-64.so.2").exists())
    interpreter = [str(loader), "--library-path", ":".join(libraries), str(root / "usr/bin" / python)]
    done = await trio.run_process(
        [*interpreter, "-s", "-S", "-B", *arguments],
        stdin=stdin,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        # The order of sets in bytecode depends on the hash seed.
        env={"PYTHONHOME": str(root / "usr"), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
    )
    if done.returncode != 0:
        raise ImageError(
            stage="compile",
            reason=f"the packaged {python} failed: {done.stderr.decode(errors='replace').strip()[-500:]}",
            remedy="build the image on an amd64 host; if this is one, report the error",
        )


async def _applets(root: Path) -> list[str]:
    busybox = next(path for name in ("bin/busybox", "usr/bin/busybox") if (path := root / name).exists())
    done = await trio.run_process([str(busybox), "--list"], capture_stdout=True)
    return [name for name in done.stdout.decode().split() if name != "busybox"]


def _assemble(
    work: Path, release: str, applets: list[str], entries: Iterable[cpio.Entry], agent: AgentKind
) -> dict[str, object]:
    found = kernel.find(work / "root", release)
    modules = found.load_order(contents.MODULES)
    with_vsock = found.load_order([*contents.MODULES, *contents.VSOCK_MODULES])
    for_vsock = [module for module in with_vsock if module not in modules]
    initrd = cpio.archive(
        contents.entries(
            root=work / "root",
            modules=with_vsock,
            applets=applets,
            init_script=init.script(
                [module.name for module in modules], [module.name for module in for_vsock], agent=agent
            ),
            agent=entries,
        )
    )
    image = found.image.read_bytes()
    (work / "initrd").write_bytes(initrd)
    (work / "vmlinuz").write_bytes(image)
    return {
        "kernel_release": release,
        "kernel_sha256": hashlib.sha256(image).hexdigest(),
        "initrd_sha256": hashlib.sha256(initrd).hexdigest(),
    }


def _publish(work: Path, directory: Path, manifest: dict[str, object]) -> None:
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Another process may build here at the same time; the three files must be from one build.
        fcntl.flock(lock, fcntl.LOCK_EX)
        _replace(work, directory, manifest)
    finally:
        os.close(lock)


def _remove_others(cache: Path, files: list[Path]) -> None:
    for path in cache.glob("*.deb"):
        if path not in files:
            path.unlink(missing_ok=True)


def _replace(work: Path, directory: Path, manifest: dict[str, object]) -> None:
    # An image without a manifest does not count, so the manifest is removed first and written last.
    (directory / "manifest.json").unlink(missing_ok=True)
    for name in ("vmlinuz", "initrd"):
        (work / name).replace(directory / name)
    (work / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    (work / "manifest.json").replace(directory / "manifest.json")
