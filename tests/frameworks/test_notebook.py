"""The notebook of the documentation, executed by a real kernel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import nbformat
import pytest
from nbclient import NotebookClient

from vmm.initramfs.image import GuestImage

NOTEBOOK: Final = Path(__file__).parents[2] / "docs/tasks/notebook.ipynb"
LIMIT_S: Final = 240
"""For one cell; the first ones wait for a guest that boots under emulation."""


def printed(cell: Any) -> str:
    return "".join(output["text"] for output in cell.outputs if output["output_type"] == "stream")


def test_it_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.qemu
def test_its_cells_do_what_is_said_beside_them(
    guest_image: GuestImage, vm_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMPOOL_IMAGE_DIR", str(guest_image.kernel.parent))
    monkeypatch.setenv("TMPDIR", str(vm_home))
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=LIMIT_S, kernel_name="python3").execute(env=dict(os.environ))
    said = [text.strip() for cell in notebook.cells if cell.cell_type == "code" and (text := printed(cell))]
    greeting, total, missing, squares, without_await = said
    assert greeting == "hello from Linux"
    assert total == "6"
    assert "/app/missing" in missing
    assert squares == "['36', '49']"
    assert without_await == "no await"
    assert list(vm_home.iterdir()) == []
