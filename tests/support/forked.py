"""Processes of their own that cost no imports: all are forked from one that has imported the packages."""

import multiprocessing
import os
import socket
import sys
from pathlib import Path

context = multiprocessing.get_context("forkserver")
IMPORTED = ("cli.analyze", "cli.train", "dia_analysis.correlation.measure", "dia_models.classification.training")
IMPORTED += ("dia_models.runs.training_run", "sklearn.datasets", "torchvision", "xarray")
context.set_forkserver_preload([*IMPORTED])


class Process:
    """A process that runs the code with these arguments in `sys.argv`; `out` and `err` are the files it prints to."""

    def __init__(self, code, *arguments, folder, name="process", **environment):
        self.out, self.err = (Path(folder, f"{name}.{stream}") for stream in ("out", "err"))
        given = (code, [str(a) for a in arguments], str(folder), str(self.out), str(self.err), environment)
        self.process = context.Process(target=_run, args=given)
        self.process.start()

    @property
    def code(self):
        """The exit code: None while it runs, negative for a signal."""
        return self.process.exitcode

    def signal(self, number):
        os.kill(self.process.pid, number)

    def wait(self, seconds=500):
        """Give the exit code at its end."""
        self.process.join(seconds)
        return self.code


def run(code, *arguments, folder, **environment):
    """Run it to its end."""
    process = Process(code, *arguments, folder=folder, **environment)
    process.wait()
    return process


def run_two(code, *arguments, folder):
    """Run two processes that know of each other as those that torchrun starts do; gives both at their end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    two = [
        Process(code, *arguments, folder=folder, name=f"rank{rank}", RANK=rank, LOCAL_RANK=rank, **shared)
        for rank in ("0", "1")
    ]
    for process in two:
        process.wait()
    return two


def _run(code, arguments, folder, out, err, environment):
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        with Path(path).open("wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["test", *arguments]
    exec(compile(code, "<test>", "exec"), {"__name__": "__main__"})
