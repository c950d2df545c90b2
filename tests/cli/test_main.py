"""``iwlora`` itself: help, versions, exit codes, and what a command imports."""

from __future__ import annotations

import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from commands import call
from iwlora import IwloraError, __version__
from iwlora.cli import main, parse

COMMANDS = (
    "measure",
    "advise",
    "init",
    "train",
    "compare",
    "design",
    "report",
    "export",
    "predict",
    "compose",
    "methods",
    "tasks",
    "codes",
    "generate",
)
HELP = [*((command,) for command in COMMANDS), ("tasks", "show"), ("tasks", "average")]


def python(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def seconds_of(*command: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return time.perf_counter() - started


def test_help_is_quick() -> None:
    assert statistics.median(seconds_of("-m", "iwlora", "--help") for _ in range(3)) < 1


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"], ["tasks"]])
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from iwlora.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'transformers', 'peft', 'datasets', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    python(code, *arguments)


def test_no_search_for_cycles_at_exit() -> None:
    code = (
        "import atexit, gc\n"
        "from iwlora.cli import main\n"
        "atexit.register(lambda: print(len(gc.get_objects()) < 1000 < gc.get_freeze_count()))\n"
        "main(['tasks'])\n"
    )
    assert python(code).endswith("True\n")


@pytest.mark.quick
def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    shown = call(capsys, "--help")
    assert shown.code == 0
    for command in COMMANDS:
        assert f"\n    {command} " in shown.out


@pytest.mark.quick
@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_help_has_a_sentence_and_an_example_that_parses(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = call(capsys, *command, "--help")
    assert shown.code == 0
    usage, sentence, example = shown.out.split("\n\n")[:3]
    assert usage.startswith(f"usage: iwlora {' '.join(command)} ")
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    title, *lines = example.splitlines()
    assert title == "Example:"
    assert lines
    for line in lines:
        words = line.rpartition("| ")[2].split(">")[0].split()
        assert words[0] == "iwlora"
        assert words[1] == command[0]
        parse(words[1:])


@pytest.mark.quick
def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "--version").out == f"iwlora {__version__}\n"


@pytest.mark.quick
def test_overrides_may_stand_anywhere() -> None:
    parsed = parse(["train", "r.yaml", "a=1", "--out", "o", "b=2", "--dry-run", "c=3"])
    assert parsed.overrides == ["a=1", "b=2", "c=3"]
    parsed = parse(["compare", "r.yaml", "a=1", "--out", "o", "b=2"])
    assert parsed.sources == ["r.yaml", "a=1", "b=2"]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("error", "code", "printed"),
    [
        (IwloraError("first\nsecond"), 2, "error: first\nerror: second\n"),
        (OSError(28, "No space left on device"), 2, "error: No space left on device\n"),
        (
            ModuleNotFoundError("No module named 'sklearn'", name="sklearn"),
            2,
            "error: this needs scikit-learn; pip install 'iwlora[train]'\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted\nto go on: iwlora report runs/a\n"),
    ],
)
def test_exit_codes(
    error: BaseException,
    code: int,
    printed: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("iwlora.results.comparison.combined.load_parts", fail)
    outcome = call(capsys, "report", "runs/a")
    assert (outcome.code, outcome.err) == (code, printed)


@pytest.mark.quick
@pytest.mark.parametrize("error", [ZeroDivisionError(), ModuleNotFoundError(name="ours")])
def test_errors_of_the_library_itself_are_not_hidden(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("iwlora.results.comparison.combined.load_parts", fail)
    with pytest.raises(type(error)):
        main(["report", "runs/a"])


@pytest.mark.quick
@pytest.mark.parametrize(
    "error",
    [MemoryError(), ImportError("libtorch.so: failed to map segment from shared object")],
    ids=["Python", "libraries"],
)
def test_too_little_memory_is_named(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("iwlora.results.comparison.combined.load_parts", fail)
    assert main(["report", "runs/a"]) == 2
    assert capsys.readouterr().err.startswith("error: out of memory (")


def test_a_closed_pipe() -> None:
    code = (
        "import sys, time\n"
        "import iwlora.tasks\n"
        "from iwlora.cli import main\n"
        "iwlora.tasks.describe = lambda: time.sleep(0.2) or []\n"  # little output, after the reader
        "sys.exit(main(['tasks']))\n"
    )
    command = f"set -o pipefail; {shlex.join([sys.executable, '-c', code])} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.quick
def test_one_file_a_command() -> None:
    folder = Path(main.__code__.co_filename).parent
    assert {f"{command}.py" for command in COMMANDS} <= {path.name for path in folder.rglob("*.py")}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows removes no folder that is used")
def test_a_command_in_a_folder_that_was_removed(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = 'cd "$1" && rmdir "$1" && exec "$2" -m iwlora tasks'
    started = ["sh", "-c", script, "sh", str(gone), sys.executable]
    done = subprocess.run(started, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: the folder from which this command was started no longer")
