"""`tutelage` as it is, but for two things that the environment asks for; faults.py runs it.

python -m benchmarks.faulted VERB FLAGS…

FAULTS_SAVE_SECONDS: seconds between checkpoints, in the place of `tutelage.loop.SAVE_SECONDS`.
FAULTS_AT=HOW NUMBER DELAY: this process kills itself at the NUMBER-th file that it writes: so many
seconds after it has begun (`begun`), when all of it is on disk under its passing name (`written`;
of a checkpoint the last one has become the one before by then), or when it is in its place
(`placed`). The file's name is left in FAULTS_SAID. FAULTS_COUNT: a file for the number of files
that were written, at the end.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tutelage import cli, files
from tutelage.distributed import launcher


class Writes:
    """Counts files as they are written, and ends the process at one of them."""

    def __init__(self, asked: str) -> None:
        """Take FAULTS_AT, or nothing."""
        self.how, number, delay = asked.split() if asked else ("never", "0", "0")
        self.number, self.delay = int(number), float(delay)
        self.seen, self.real = 0, files.whole

    @contextmanager
    def whole(self, path: Path, *, mark: str = "") -> Iterator[Path]:
        """As `tutelage.files.whole`."""
        self.seen += 1
        now = self.seen == self.number
        if now:
            Path(os.environ["FAULTS_SAID"]).write_text(path.name)
        if now and self.how == "begun":  # the system ends it, whatever Python does then
            signal.setitimer(signal.ITIMER_REAL, self.delay)
        with self.real(path, mark=mark) as part:
            yield part
            if now and self.how == "written":
                os.kill(os.getpid(), signal.SIGKILL)
        if now and self.how == "placed":
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    """Run the verb."""
    writes = Writes(os.environ.get("FAULTS_AT", ""))
    files.whole = writes.whole  # before the modules that take it from there are imported
    call = cli._call

    def patched(verb: str, arguments: list[str]) -> int:
        """Do the verb; the loop is imported here, where signals are looked after already."""
        if verb in ("train", "selftrain") and "FAULTS_SAVE_SECONDS" in os.environ:
            from tutelage import loop

            loop.SAVE_SECONDS = float(os.environ["FAULTS_SAVE_SECONDS"])
        return call(verb, arguments)

    begin = launcher.run_in_processes
    launcher.run_in_processes = (
        lambda devices, command: begin(  # this program, and not tutelage
            devices, [sys.executable, "-m", "benchmarks.faulted", *command[3:]]
        )
    )
    cli._call = patched
    code = cli.main()
    if "FAULTS_COUNT" in os.environ and writes.seen:  # not in one that only begins others
        Path(os.environ["FAULTS_COUNT"]).write_text(str(writes.seen))
    return code


if __name__ == "__main__":
    sys.exit(main())
