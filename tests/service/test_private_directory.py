"""Only a directory of this user, closed to others and no link, is used as a private one."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.private_directory import NotPrivate, make_private, open_private

NOBODY = 65534
SETTING = "QIN_PRIVATE"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def another_user() -> Iterator[None]:
    """Without root's capabilities, which go with its effective uid."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_missing_directory_is_made_with_mode_0700_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_private(tmp_path / "a" / "b" / "c", SETTING)
    finally:
        os.umask(before)
    assert mode(tmp_path / "a" / "b" / "c") == 0o700
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o755


@pytest.mark.parametrize("wide", [0o777, 0o1750, 0o750, 0o701, 0o500])
def test_one_of_ours_is_set_to_mode_0700(tmp_path: Path, wide: int) -> None:
    ours = tmp_path / "ours"
    ours.mkdir()
    ours.chmod(wide)
    make_private(ours, SETTING)
    assert mode(ours) & 0o777 == 0o700


def test_one_that_all_users_share_is_refused_and_stays_so(tmp_path: Path) -> None:
    """Of root, it would be closed to all others."""
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    with pytest.raises(NotPrivate, match=f"QIN_PRIVATE: .*is shared by all users.*{shared}/qin"):
        make_private(shared, SETTING)
    assert mode(shared) == 0o1777


def test_a_link_is_refused_even_to_a_private_directory_of_ours(tmp_path: Path) -> None:
    make_private(tmp_path / "real", SETTING)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(
        NotPrivate, match=f"QIN_PRIVATE: .*link is a symbolic link.*{tmp_path}/real"
    ):
        make_private(tmp_path / "link", SETTING)


def test_a_link_to_nothing_is_refused_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotPrivate, match="is a symbolic link"):
        make_private(tmp_path / "link", SETTING)
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotPrivate, match="is not a directory"):
        make_private(tmp_path / "file", SETTING)
    with pytest.raises(NotPrivate, match="Not a directory"):
        make_private(tmp_path / "file" / "below", SETTING)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory to another user")
def test_a_directory_of_another_user_is_refused_with_the_remedy_and_left_as_it_is(
    tmp_path: Path,
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    theirs.chmod(0o777)
    os.chown(theirs, NOBODY, NOBODY)
    with pytest.raises(NotPrivate, match=f"belongs to uid {NOBODY}.*chown 0 {theirs}"):
        make_private(theirs, SETTING)
    assert mode(theirs) == 0o777


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_an_ordinary_user_is_refused_roots_directory_and_may_have_one_below_it(
    tmp_path: Path,
) -> None:
    """As in Kubernetes, where an emptyDir is root's and open to all."""
    with tempfile.TemporaryDirectory() as parent:  # not ``tmp_path``, which is closed to others
        os.chmod(parent, 0o755)
        shared = Path(parent) / "tables"
        shared.mkdir()
        shared.chmod(0o777)
        with another_user():
            with pytest.raises(
                NotPrivate, match=f"belongs to uid 0, and this process runs as uid {NOBODY}"
            ):
                make_private(shared, SETTING)
            make_private(shared / "qin", SETTING)
            with pytest.raises(NotPrivate, match="Permission denied; name a directory that this"):
                make_private(Path(parent) / "another", SETTING)
        assert (mode(shared / "qin"), (shared / "qin").stat().st_uid) == (0o700, NOBODY)


def test_what_is_opened_by_the_descriptor_is_in_the_directory_that_was_checked(
    tmp_path: Path,
) -> None:
    directory = open_private(tmp_path / "ours", SETTING)
    try:
        (tmp_path / "ours").rename(tmp_path / "moved")
        (tmp_path / "ours").mkdir()
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=directory))
    finally:
        os.close(directory)
    assert (tmp_path / "moved" / "file").exists()
    assert not (tmp_path / "ours" / "file").exists()
