"""The cache of compiled kernels: damaged, planted, of others; compilers that hang, lie and babble; no place for it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gradlab.nn.kernels import compiler
from gradlab.nn.kernels.compiler import library

pytestmark = pytest.mark.skipif(library("float32") is None, reason="no C compiler")


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A library in a cache of its own, and nothing remembered in this process; of one function, which compiles fast."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "player.c").write_text("void play(void *a, long b, void *c, long d) {}", encoding="utf-8")
    monkeypatch.setattr(compiler, "SOURCE", source)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    library.cache_clear()
    path = library("float32")
    assert path is not None
    library.cache_clear()
    yield path
    library.cache_clear()


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for place in range(0, len(content), 97):
        content[place] ^= 0xFF
    path.write_bytes(content)


def linked(path: Path) -> None:
    path.symlink_to(path.rename(path.with_suffix(".old")))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "flipped": flipped,
    "gone": lambda path: path.unlink(),
    "writable by others": lambda path: path.chmod(0o777),
    "a link": linked,
    "no note": lambda path: path.with_suffix(".lock").write_text("", encoding="ascii"),
    "a folder for all": lambda path: path.parent.chmod(0o1777),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_library_is_compiled_again(case: str, cached: Path) -> None:
    whole = cached.read_bytes()
    DAMAGE[case](cached)
    assert library("float32") == cached
    assert cached.read_bytes() == whole
    assert not cached.is_symlink()
    assert cached.stat().st_mode & 0o022 == 0
    assert cached.parent.stat().st_mode & 0o022 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="another's file is only made by root")
def test_scratch_of_killed_compilations_is_swept_up(cached: Path) -> None:
    for name, age in (("tmpdead", 3600), ("tmpbusy", 0)):
        scratch = cached.parent / name
        scratch.mkdir()
        (scratch / "half.so").write_bytes(b"")
        os.utime(scratch, (time.time() - age,) * 2)
    cached.unlink()
    assert library("float32") == cached
    assert [path.name for path in cached.parent.glob("tmp*")] == ["tmpbusy"]


def test_a_library_of_another_user_is_not_loaded(cached: Path) -> None:
    os.chown(cached, 12345, 12345)
    assert library("float32") == cached
    assert cached.stat().st_uid == os.geteuid()
    library.cache_clear()
    os.chown(cached.parent, 12345, 12345)
    assert library("float32") is None


def test_a_planted_link_in_the_place_of_the_lock_empties_nothing(cached: Path, tmp_path: Path) -> None:
    target = tmp_path / "mine"
    target.write_text("mine", encoding="utf-8")
    cached.with_suffix(".lock").unlink()
    cached.with_suffix(".lock").symlink_to(target)
    assert library("float32") is None
    assert target.read_text(encoding="utf-8") == "mine"


COMPILERS = {
    "not a program": "\x7fELF nonsense",
    "Latin-1": "#!/bin/sh\nprintf '\\351\\n'; exit 1\n",
    "rubbish": '#!/bin/sh\nfor a in "$@"; do [ "$last" = -o ] && echo rubbish > "$a"; last="$a"; done\necho\n',
    "nothing": "#!/bin/sh\nexit 0\n",
}


@pytest.mark.parametrize("case", COMPILERS)
def test_a_compiler_that_lies_leaves_the_work_to_torch(
    case: str, cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "cc"
    program.write_text(COMPILERS[case], encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("CC", str(program))
    assert library("float32") is None
    assert not list(cached.parent.glob("tmp*"))


def test_a_compiler_that_hangs_is_given_up_and_remembered(
    cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "cc"
    program.write_text("#!/bin/sh\nsleep 100\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("CC", str(program))
    monkeypatch.setattr(compiler, "ASK_SECONDS", 0.5)
    assert library("float32") is None
    library.cache_clear()
    monkeypatch.setattr(compiler, "ASK_SECONDS", 30)
    began = time.monotonic()
    assert library("float32") is None
    assert time.monotonic() - began < 5


def test_what_did_not_work_is_not_compiled_again(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []

    def fails(_: object, __: str, path: Path) -> bool:
        calls.append(path)
        return False

    monkeypatch.setattr(compiler, "_compiled", fails)
    cached.unlink()
    assert library("float32") is None
    library.cache_clear()
    assert library("float32") is None
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("name", "value"), [("CC", "gcc '"), ("HOME", "rel"), ("HOME", "~"), ("XDG_CACHE_HOME", "rel")]
)
def test_odd_surroundings_are_survived(
    name: str, value: str, cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "HOME":
        monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv(name, value)
    found = library("float32")
    assert found is None or found.is_absolute()
    assert not (tmp_path / "rel").exists()


def test_a_cache_that_is_in_the_way(cached: Path) -> None:
    shutil.rmtree(cached.parent)
    cached.parent.write_text("in the way", encoding="utf-8")
    assert library("float32") is None
