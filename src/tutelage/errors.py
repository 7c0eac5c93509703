"""The errors that a user can meet, as one small tree.

TutelageError          exit code 1
├── GivenUp            a training that leads nowhere: collapsed, or its loss is not finite
├── Exhausted          this machine has no more memory, or no more open files
├── UsageError         exit code 2: a wrong flag, name, path or combination
│   ├── RunMismatch    the run folder belongs to another configuration, or is in use
│   ├── Unreachable    the network or its host is not there, perhaps only now
│   └── Damaged        a file of a run or a model is not as it was written
├── DataProblem        exit code 3: the images themselves; details are in an issues.csv
├── Interrupted        exit code 4: stopped by the user; the same command goes on
└── Dismissed          of several processes, one that was not the first: as the first one ended
"""

NO_MEMORY = (  # as libraries say it, in small letters
    "out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory",
    "failed to allocate", "bad_alloc", "status_alloc_failed",
)  # fmt: skip


class TutelageError(Exception):
    """Whatever a user can mend; its message says what, which, and what to do."""

    exit_code = 1


class GivenUp(TutelageError):
    """A training that leads nowhere; the message says why, and what to try."""


class Exhausted(TutelageError):
    """Memory or open files of this machine are used up, whatever was being read."""


class UsageError(TutelageError):
    """A flag, name, path or combination that can't work."""

    exit_code = 2


class RunMismatch(UsageError):
    """The run folder was started with other settings, or another process uses it."""


class Unreachable(UsageError):
    """A host that has what is asked for doesn't answer, which may pass."""


class Damaged(UsageError):
    """A file of a run or of a model is missing, or not as it was written."""


class DataProblem(TutelageError):
    """Images or folders that must be mended before training makes sense."""

    exit_code = 3


class Dismissed(TutelageError):
    """The leading process of several ended with an error, which it has said itself."""

    def __init__(self, exit_code: int) -> None:
        """End with the leader's exit code."""
        super().__init__(exit_code)
        self.exit_code = exit_code


class Interrupted(TutelageError):
    """Ctrl-C or SIGTERM: all is saved, and the same command continues."""

    exit_code = 4


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, in the words of PyTorch or of ONNX Runtime."""
    words = f"{type(error).__name__}: {error}".lower()
    no_memory = isinstance(error, MemoryError) or "outofmemoryerror" in words
    return no_memory or any(sign in words for sign in NO_MEMORY)
