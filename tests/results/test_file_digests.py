"""Digests of files: read once, and again when the file changes."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from iwlora.results import file_digests
from iwlora.results.file_digests import cache_folder, file_digest


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(file_digests, "CACHED_FROM_BYTES", 4)
    monkeypatch.setattr(file_digests, "_SETTLED_SECONDS", -1.0)  # the system's clock is coarse
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    os.utime(path, ns=(10**18, 10**18))
    return path


@pytest.mark.quick
def test_a_large_file_is_read_once(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = hashlib.sha256(b"weights").hexdigest()
    assert file_digest(large) == expected
    monkeypatch.setattr(file_digests, "_read", lambda _: "read again")
    link = large.with_name("link")
    link.symlink_to(large)
    assert file_digest(large) == file_digest(link) == expected
    assert file_digest(large, use_cache=False) == "read again"


def test_a_changed_file_is_read_again(large: Path) -> None:
    file_digest(large)
    large.write_bytes(b"WEIGHTS")
    assert file_digest(large) == hashlib.sha256(b"WEIGHTS").hexdigest()


def test_a_change_whose_time_was_put_back_is_seen(large: Path) -> None:
    """Nobody can put back the time at which the system noticed the change."""
    file_digest(large)
    time.sleep(0.02)  # the system's clock is coarse
    large.write_bytes(b"WEIGHTS")
    os.utime(large, ns=(10**18, 10**18))
    assert file_digest(large) == hashlib.sha256(b"WEIGHTS").hexdigest()


def test_a_change_that_the_system_did_not_notice_is_seen_without_the_cache(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, identity = file_digest(large), file_digests._identity(large)
    large.write_bytes(b"WEIGHTS")
    monkeypatch.setattr(file_digests, "_identity", lambda path: identity)
    assert file_digest(large) == before, "the cache cannot see it"
    assert file_digest(large, use_cache=False) == hashlib.sha256(b"WEIGHTS").hexdigest()


def test_a_file_that_may_still_change_is_not_kept(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was written just now, whatever time it was given."""
    monkeypatch.setattr(file_digests, "_SETTLED_SECONDS", 2.0)
    file_digest(large)
    assert not cache_folder().exists()


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"sha256": 3}', "\x00"])
def test_a_damaged_entry_is_ignored(large: Path, damage: str) -> None:
    expected = file_digest(large)
    (entry,) = cache_folder().iterdir()
    entry.write_text(damage)
    assert file_digest(large) == expected


def test_a_digest_in_an_entry_that_was_changed_is_ignored(large: Path) -> None:
    expected = file_digest(large)
    (entry,) = cache_folder().iterdir()
    entry.write_text(entry.read_text().replace(expected, "0" * 64))
    assert file_digest(large) == expected


def test_a_cache_that_cannot_be_written_costs_only_time(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = large.with_name("blocked")
    blocked.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert file_digest(large) == hashlib.sha256(b"weights").hexdigest()
