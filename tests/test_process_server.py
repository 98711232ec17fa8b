"""A forked process equals a new interpreter, except for modules that are imported already."""

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


def test_a_script_runs_as_in_a_new_interpreter(tmp_path: Path) -> None:
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
    reported, *rest = out.splitlines()
    environment = {"PATH": os.environ["PATH"], "MORE": "x"}
    script = str(tmp_path / "script.py")
    assert json.loads(reported) == [
        "__main__",
        [script, "a", "1"],
        environment,
        str(place),
        str(tmp_path),
        "",
    ]
    assert sorted(rest) == ["at exit", "from a child of its own", "from a thread"]
    assert (code, err) == (3, "an error\n")


def test_an_error_is_reported() -> None:
    code, _, err = run(program=fail)
    assert code == 1
    assert err.rstrip().endswith("ValueError: of no use")


def fail() -> None:
    raise ValueError("of no use")


def test_a_signal_ends_the_process(tmp_path: Path) -> None:
    for signum, code, message in (
        (signal.SIGTERM, -signal.SIGTERM, ""),
        (signal.SIGINT, 1, "KeyboardInterrupt"),
    ):
        marker = tmp_path / signum.name
        process = start(marker, program=hang)
        wait_for(marker.exists, process)
        assert process.poll() is None
        process.send_signal(signum)
        found, _, err = ended(process)
        assert found == process.poll() == code
        assert message in err


def hang(marker: str) -> None:
    Path(marker).touch()
    threading.Event().wait()


def test_concurrent_processes_have_their_own_outputs_and_exit_codes() -> None:
    processes = [start(number, program=leave) for number in range(8)]
    assert [ended(process)[:2] for process in reversed(processes)] == [
        (number, f"{number}\n") for number in reversed(range(8))
    ]


def test_temporary_folders_outlive_a_process_and_random_numbers_differ() -> None:
    (first, first_exists), (second, second_exists) = (
        run(program=look_around)[1].split() for _ in range(2)
    )
    assert first != second
    assert (first_exists, second_exists) == ("True", "True")


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
def test_the_forked_process_has_one_thread(server: str, has: str, lacks: str) -> None:
    """A fork lacks the other threads of its parent, and locks that they hold stay locked."""
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
    # The thread jemalloc_bg_thd belongs to Arrow's allocator, which is safe to fork.
    print(len(names) - names.count("jemalloc_bg_thd"))
