"""A process of a server is what a fresh one would be, but for what is imported already."""

import importlib.util
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.processes import ended, run, start, wait_for

SCRIPT = """
import atexit, json, os, signal, sys, threading
atexit.register(print, "at exit")
print(json.dumps([__name__, sys.argv, dict(os.environ), os.getcwd(), sys.path[0], sys.stdin.read()]), flush=True)
os.system("echo from a child of its own; echo an error >&2")
threading.Timer(0.1, print, ["from a thread"]).start()
sys.exit(3)
"""


def test_a_script_is_run_as_it_would_be_by_itself(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    place = tmp_path / "elsewhere"
    place.mkdir()
    code, out, err = run(
        "a",
        1,
        program=tmp_path / "script.py",
        cwd=place,
        env={"PATH": os.environ["PATH"]},
        MORE="x",
    )
    told, *rest = out.splitlines()
    environment = {"PATH": os.environ["PATH"], "MORE": "x"}
    script = str(tmp_path / "script.py")
    assert json.loads(told) == [
        "__main__",
        [script, "a", "1"],
        environment,
        str(place),
        str(tmp_path),
        "",
    ]
    assert sorted(rest) == ["at exit", "from a child of its own", "from a thread"]
    assert (code, err) == (3, "an error\n")


def test_an_error_is_told() -> None:
    code, _, err = run(program=fail)
    assert code == 1
    assert err.rstrip().endswith("ValueError: of no use")


def fail() -> None:
    raise ValueError("of no use")


def test_a_signal_ends_it(tmp_path: Path) -> None:
    for signum, code, told in (
        (signal.SIGTERM, -signal.SIGTERM, ""),
        (signal.SIGINT, 1, "KeyboardInterrupt"),
    ):
        there = tmp_path / signum.name
        process = start(there, program=hang)
        wait_for(there.exists, process)
        assert process.poll() is None
        process.send_signal(signum)
        found, _, err = ended(process)
        assert found == process.poll() == code
        assert told in err


def hang(there: str) -> None:
    Path(there).touch()
    threading.Event().wait()


def test_many_at_once_each_have_their_own_end() -> None:
    processes = [start(number, program=leave) for number in range(8)]
    assert [ended(process)[:2] for process in reversed(processes)] == [
        (number, f"{number}\n") for number in reversed(range(8))
    ]


def test_what_modules_have_made_outlives_a_process_and_numbers_are_others() -> None:
    (first, again), (second, there) = (run(program=look_around)[1].split() for _ in range(2))
    assert first != second
    assert (again, there) == ("True", "True")


def look_around() -> None:
    import numpy as np
    from wandb.sdk.data_types import _private

    print(np.random.random(), Path(_private.MEDIA_TMP.name).is_dir())


def leave(number: str) -> None:
    print(number)
    time.sleep(0.01)
    sys.exit(int(number))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are read from /proc")
@pytest.mark.parametrize(
    ("server", "has", "lacks"),
    [("torch", "engine.run", "tensorflow"), ("tensorflow", "keras_bert.command_line", "torch")],
)
def test_everything_is_imported_by_one_thread(server: str, has: str, lacks: str) -> None:
    """A thread of the process that is forked would be missing in the new one, with the locks that it holds."""
    if importlib.util.find_spec(server) is None:
        pytest.skip("the extra keras is not installed")
    code, out, err = run(has, lacks, program=look, server=server)
    assert (code, out) == (0, "1\n"), err


def look(has: str, lacks: str) -> None:
    assert has in sys.modules
    assert lacks not in sys.modules
    names = [
        (task / "comm").read_text().strip() for task in Path(f"/proc/{os.getppid()}/task").iterdir()
    ]
    print(len(names) - names.count("jemalloc_bg_thd"))  # of Arrow's allocator, which knows of forks
