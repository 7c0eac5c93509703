"""One self-contained HTML page of a run."""

from pathlib import Path

from tutelage.files import write_text
from tutelage.run import read_run


def write_report(run: Path) -> Path:
    """Write RUN/report/index.html and return its path."""
    read_run(run)
    path = run / "report" / "index.html"
    write_text(path, "<html></html>")
    return path
