"""Starts processes for tests; each is a fork of a process that has imported everything already.

The process that controls the tests starts one server for PyTorch and one for TensorFlow, because
the two cannot share a process. All workers use these servers. A server imports nothing heavy: the
standard library's forkserver does so, once, when the first process is requested. When the stdin of
a server is closed, it kills all processes that it started.
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
    """The program that a process runs.

    Attributes:
        program: The path of a script or the name of a module, run as by
            `python SCRIPT ARGUMENTS` or `python -m MODULE ARGUMENTS`; or a function.
        arguments: Arguments of the program.
        environment: The whole environment.
        cwd: The working directory.
        streams: Files or terminals that become stdin, stdout and stderr.
    """

    program: str | Callable[..., None]
    arguments: tuple[str, ...]
    environment: dict[str, str]
    cwd: str
    streams: tuple[str, str, str]


def work(job: Job) -> None:
    """Run a job in the new process, in the same way as a new interpreter if possible."""
    for number, path in enumerate(job.streams):
        opened = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOCTTY)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - the forkserver has closed its own
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Exit handlers of modules, such as the removal of a temporary folder, belong to the process
    # that imported the modules.
    atexit._clear()
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # Python reseeds its own generator by itself
    os.chdir(job.cwd)
    os.environ.clear()
    os.environ.update(job.environment)
    try:
        if callable(job.program):
            job.program(*job.arguments)
        elif job.program.endswith(".py"):
            sys.argv = [job.program, *job.arguments]
            sys.path.insert(0, str(Path(job.program).parent))
            runpy.run_path(job.program, run_name="__main__")
        else:
            sys.argv = ["-m", *job.arguments]
            runpy.run_module(job.program, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # a forked process does not call them


def serve(address: str, preloaded: str) -> None:
    """Start a process for every connection; send its id, and its exit code when it ends."""
    context = get_context("forkserver")
    context.set_forkserver_preload([preloaded])
    processes: set[BaseProcess] = set()
    lock = threading.Lock()  # starting a process polls the others

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
    )  # Ctrl-C is for the tests, which close stdin when they end
    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()
    for process in [*processes]:  # a thread may add one
        if process.pid is not None:
            process.kill()


if __name__ == "__main__":
    # Imported by name, so that new processes find `work` under the same name.
    from tests.process_server import serve as serve_from_module

    serve_from_module(*sys.argv[1:])
