"""Processes of their own that are forked from one that has the libraries: they begin at once.

To load torch, torchvision and timm takes 4 seconds of each start, and most of what a test of kills
would do. Nothing of tutelage is loaded before the fork, so that a program may patch it first.
"""

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired

COMMAND = "import sys; from tutelage.cli import main; sys.exit(main(sys.argv[1:]))"
KILLER = Path(__file__).with_name("killer.py").read_text()
LIBRARIES = ["timm", "torchvision", "pyarrow.dataset", "matplotlib.figure", "jinja2", "tyro"]

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(LIBRARIES)


class Start:
    """A program that runs, as `python -c PROGRAM ARGUMENTS` would."""

    def __init__(self, program: str, *arguments: object) -> None:
        self.said = tempfile.TemporaryDirectory()
        self.arguments = [str(argument) for argument in arguments]
        given = (program, self.arguments, dict(os.environ), os.getcwd(), self.said.name)
        self.process = FORKS.Process(target=_begin, args=given)
        self.process.start()

    def running(self) -> bool:
        return self.process.is_alive()

    def send_signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def end(self, timeout: float = 300) -> CompletedProcess[str]:
        """What it has said, and its exit code, or the signal that killed it, below 0."""
        self.process.join(timeout)
        if self.process.is_alive():
            self.process.kill()
            raise TimeoutExpired(self.arguments, timeout)
        code = self.process.exitcode
        self.process.close()
        with self.said:
            said = [Path(self.said.name, name).read_text() for name in ("1", "2")]
        return CompletedProcess(self.arguments, code, *said)


def run(program: str, *arguments: object) -> CompletedProcess[str]:
    """A program from its start to its end."""
    return Start(program, *arguments).end()


def _begin(
    program: str, arguments: list[str], environment: dict[str, str], folder: str, said: str
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number in (1, 2):
        with Path(said, str(number)).open("wb") as file:
            os.dup2(file.fileno(), number)
    sys.argv = ["-c", *arguments]
    exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
