"""Starts the processes that tests ask for, each a fork of one that has imported everything already.

The process that controls the tests starts one of these for PyTorch and one for TensorFlow, which do
not share a process; all that share the tests use them. Here nothing heavy is imported: that is done
by the standard library's forkserver, once, when the first process is asked for. With the end of its
stdin everything that it started ends.
"""

import atexit
import os
import runpy
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, Listener, wait
from multiprocessing.process import BaseProcess
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """What a process does.

    Attributes:
        program: The path of a script or the name of a module, run as `python SCRIPT WORDS` or
            `python -m MODULE WORDS` would; or a function, called with the words.
        words: Its arguments.
        environment: The whole environment.
        cwd: Where it runs.
        streams: Files or terminals that become stdin, stdout and stderr.
    """

    program: str | Callable[..., None]
    words: tuple[str, ...]
    environment: dict[str, str]
    cwd: str
    streams: tuple[str, str, str]


def work(job: Job) -> None:
    """In the new process: become what `python` would be, as far as modules that are imported already can be."""
    for number, path in enumerate(job.streams):
        opened = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOCTTY)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - the forkserver has closed its own
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # What modules have registered for the end, such as the removal of a temporary folder, is for
    # the process that imported them.
    atexit._clear()
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # Python itself does so with its own generator
    os.chdir(job.cwd)
    os.environ.clear()
    os.environ.update(job.environment)
    try:
        if callable(job.program):
            job.program(*job.words)
        elif job.program.endswith(".py"):
            sys.argv = [job.program, *job.words]
            sys.path.insert(0, str(Path(job.program).parent))
            runpy.run_path(job.program, run_name="__main__")
        else:
            sys.argv = ["-m", *job.words]
            runpy.run_module(job.program, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # a forked process leaves them out


def serve(address: str, preloaded: str) -> None:
    """Start a process for every connection, whose other end then reads its id and its exit code."""
    context = get_context("forkserver")
    context.set_forkserver_preload([preloaded])
    processes: set[BaseProcess] = set()
    lock = threading.Lock()  # starting one looks at how the others do

    def start(connection: Connection) -> None:
        with connection:
            process = context.Process(target=work, args=(connection.recv(),))
            processes.add(process)
            with lock:
                process.start()
            connection.send(process.pid)
            wait([process.sentinel])
            with lock:
                process.join()
            connection.send(process.exitcode)

    def accept() -> None:
        with Listener(address) as listener:
            print("ready", flush=True)
            while True:
                threading.Thread(target=start, args=(listener.accept(),), daemon=True).start()

    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the tests, which close stdin at their end
    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()
    for process in [*processes]:  # a thread may add one
        if process.pid is not None:
            process.kill()


if __name__ == "__main__":
    # By its name, so that the processes find what is called here, too.
    from tests.process_server import serve as serve_from_module

    serve_from_module(*sys.argv[1:])
