"""Where things are when nobody says where."""

from __future__ import annotations

from pathlib import Path

import pytest

from pool.host.paths import default_image_directory


@pytest.mark.parametrize("uid", [0, 1000])
def test_all_users_of_a_checkout_have_the_image_that_its_demo_built(uid: int) -> None:
    """Else `sudo vmpool serve` would not find what `scripts/demo` built as a user, or the reverse."""
    checkout = Path(__file__).parents[3]
    assert default_image_directory(environment={"HOME": "/home/u"}, uid=uid) == checkout / "build" / "image"


@pytest.mark.parametrize(("uid", "place"), [(0, "/var/cache/vmpool/image"), (1000, "/cache/vmpool/image")])
def test_an_installed_one_has_its_users(tmp_path: Path, uid: int, place: str) -> None:
    assert default_image_directory(environment={"XDG_CACHE_HOME": "/cache"}, uid=uid, code=tmp_path) == Path(place)


def test_what_is_named_goes_before_both() -> None:
    assert default_image_directory(environment={"VMPOOL_IMAGE_DIR": "/i"}) == Path("/i")
