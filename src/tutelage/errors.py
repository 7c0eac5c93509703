"""The errors that a user can meet, as one small tree.

TutelageError          exit code 1
├── GivenUp            a training that leads nowhere: collapsed, or its loss is not finite
├── UsageError         exit code 2: a wrong flag, name, path or combination
│   ├── RunMismatch    the run folder belongs to another configuration, or is in use
│   ├── Unreachable    the network or its host is not there, perhaps only now
│   └── Damaged        a file of a run or a model is not as it was written
├── DataProblem        exit code 3: the images themselves; details are in an issues.csv
└── Interrupted        exit code 4: stopped by the user; the same command goes on
"""


class TutelageError(Exception):
    """Whatever a user can mend; its message says what, which, and what to do."""

    exit_code = 1


class GivenUp(TutelageError):
    """A training that leads nowhere; the message says why, and what to try."""


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


class Interrupted(TutelageError):
    """Ctrl-C or SIGTERM: all is saved, and the same command continues."""

    exit_code = 4
