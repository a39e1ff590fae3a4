"""Every case of Kata's own tests has a test here that is named after it, and docs/kata.md says where."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).parents[2]
DOCS: Final = TESTS.parent / "docs" / "kata.md"

CASES: Final = tuple(
    f"{letter}{number}"
    for letter, last in (("F", 22), ("C", 1), ("D", 1), ("T", 6), ("L", 5), ("V", 5), ("Q", 1), ("G", 9))
    for number in range(1, last + 1)
)
"""F: factory; C, D, T: cache, direct, template; L: commands; V: VM; Q: QEMU on the wire; G: configuration."""

UNTESTED_BY_KATA: Final = (
    "RPCs over a real socket",
    "a socket that is there",
    "Quit",
    "signals",
    "a failed boot",
    "a client that hangs up",
    "GetBaseVM at the same time",
    "a QEMU that lives",
)


def all_tests() -> frozenset[str]:
    return frozenset(
        name
        for path in TESTS.rglob("test_*.py")
        for name in re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    )


def cases_of(test: str) -> set[str]:
    """`test_f5_and_f6_what_it_says` is about F5 and F6."""
    found = set()
    for word in test.removeprefix("test_").split("_"):
        if re.fullmatch(r"[fcdtlvqg]\d+", word):
            found.add(word.upper())
        elif word != "and":
            break
    return found


def rows() -> dict[str, str]:
    """The tables of the page: first cell to the last one, in which the tests are."""
    found = {}
    for line in DOCS.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) > 2:
            found[cells[0]] = cells[-1]
    return found


@pytest.mark.parametrize("case", CASES)
def test_each_case_has_a_test_of_its_name_and_the_page_names_it(case: str) -> None:
    named = {test for test in all_tests() if case in cases_of(test)}
    assert named, f"no test is named after {case}"
    listed = set(re.findall(r"`(test_\w+)`", rows()[case]))
    assert listed == named


@pytest.mark.parametrize("gap", UNTESTED_BY_KATA)
def test_what_kata_does_not_test_is_tested(gap: str) -> None:
    assert re.findall(r"`(test_\w+)`", rows()[gap])


def test_the_page_names_no_test_that_is_not_there() -> None:
    listed = set(re.findall(r"`(test_\w+)`", DOCS.read_text(encoding="utf-8")))
    assert listed - all_tests() == set()


def test_every_deliberate_difference_is_on_the_page() -> None:
    page = DOCS.read_text(encoding="utf-8")
    assert [
        test for test in sorted(all_tests()) if test.startswith("test_deviation_") and f"`{test}`" not in page
    ] == []
