"""An environment for each peer, made by pip with pinned versions, apart from tutelage's.

With `share` it sees the running environment's packages behind its own, so that torch is not
installed once more; then, too, all arms have the same torch and timm. Without, torch, torchvision,
timm and scikit-learn get the running environment's versions.
"""

import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

SHARED = ("torch", "torchvision", "timm", "scikit-learn", "scikit-image", "matplotlib", "tqdm")
ALONE = {"semilearn": ["semilearn==0.3.2"]}  # without what they ask for: see peers_semilearn
PINS = {
    "timm": [],
    "lightly": ["lightly-train==0.18.0", "pytorch-lightning==2.6.6", "transformers==5.23.0"],
    "semilearn": [
        "progress==1.6.1", "ruamel.yaml==0.19.1", "tensorboard==2.21.0", "transformers==5.23.0",
    ],
}  # fmt: skip


def wanted(peer: str, *, share: bool) -> list[str]:
    """What is installed, the running environment's versions among it."""
    same = [f"{name}=={version(name).partition('+')[0]}" for name in SHARED]
    return [*ALONE.get(peer, []), *PINS[peer], *([] if share else same)]


def python_of(peer: str, folder: Path, *, share: bool) -> Path:
    """The Python of a peer's environment, which is made where it is not there yet."""
    home = (folder / peer).absolute()
    python, ready = home / "bin" / "python", home / "ready.txt"
    asked = "\n".join(wanted(peer, share=share))
    if ready.exists() and ready.read_text() == asked:
        return python
    print(f"making the environment {home}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
    if share:
        place = subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        ).strip()
        Path(place, "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if peer in ALONE:
        subprocess.run([*pip, "--no-deps", *ALONE[peer]], check=True)
    rest = [name for name in wanted(peer, share=share) if name not in ALONE.get(peer, [])]
    if rest:
        subprocess.run([*pip, *rest], check=True)
    frozen = subprocess.check_output([python, "-m", "pip", "freeze"], text=True)
    (home / "freeze.txt").write_text(frozen)
    ready.write_text(asked)
    return python
