"""What `cp` and `forward` make of their arguments."""

from __future__ import annotations

import pytest

from pool.cli.places import GuestPlace, HostPlace, Place, PlaceError, StandardStream, landing, parse_place
from pool.cli.ports import Route, parse_route


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("work:/etc", GuestPlace("work", "/etc")),
        ("work:/a:b", GuestPlace("work", "/a:b")),
        ("work:/", GuestPlace("work", "/")),
        ("-", StandardStream()),
        ("file", HostPlace("file")),
        ("./a:b", HostPlace("./a:b")),
        ("/a:b", HostPlace("/a:b")),
        (":/a", HostPlace(":/a")),
    ],
)
def test_a_place_is_in_a_guest_if_a_lease_is_named(text: str, place: Place) -> None:
    assert parse_place(text) == place


@pytest.mark.parametrize("text", ["work:", "work:etc", "work:./etc", "work:~/etc"])
def test_a_path_of_a_guest_is_absolute(text: str) -> None:
    with pytest.raises(PlaceError, match="a path in a guest is absolute: work:/"):
        parse_place(text)


@pytest.mark.parametrize(
    ("source", "destination", "is_directory", "lands"),
    [
        ("a", "/d", True, "/d/a"),
        ("a", "/d/", True, "/d/a"),
        ("a", "/d/", False, "/d/a"),
        ("a", "/d", False, "/d"),
        ("x/a/", "/d", True, "/d/a"),
        ("x/a/.", "/d", True, "/d"),
        (".", "/d", True, "/d"),
        ("..", "/d", True, "/d"),
        ("/", "d", True, "d"),
        ("/etc", ".", True, "./etc"),
    ],
)
def test_a_source_lands_as_with_cp(source: str, destination: str, is_directory: bool, lands: str) -> None:
    assert landing(source, destination, is_directory=is_directory) == lands


@pytest.mark.parametrize(
    ("text", "route"),
    [
        ("80", Route(host="", local=80, remote=80)),
        ("8080:80", Route(host="", local=8080, remote=80)),
        (":80", Route(host="", local=None, remote=80)),
        ("0:80", Route(host="", local=None, remote=80)),
        ("0.0.0.0:8080:80", Route(host="0.0.0.0", local=8080, remote=80)),
        ("0.0.0.0::80", Route(host="0.0.0.0", local=None, remote=80)),
        ("[::1]:8080:80", Route(host="::1", local=8080, remote=80)),
        ("/run/a", Route(host="", local=None, remote="/run/a")),
        ("/tmp/a:/run/a", Route(host="", local="/tmp/a", remote="/run/a")),
        ("/tmp/a:80", Route(host="", local="/tmp/a", remote=80)),
        ("8080:/run/a", Route(host="", local=8080, remote="/run/a")),
        ("", None),
        ("0", None),
        ("http", None),
        ("65536", None),
        ("-1:80", None),
        ("80:", None),
        ("80:run/a", None),
        ("::1:8080:80", None),
        ("localhost:/tmp/a:80", None),
        ("٣:80", None),
    ],
)
def test_a_route_is_read_from_the_right(text: str, route: Route | None) -> None:
    assert parse_route(text) == route
