"""A model as an ONNX file: images (B, 3, S, S) in [0, 1] -> logits (B, K), any B.

By PyTorch's exporter on `torch.export`; the older one on TorchScript is deprecated. Height and
width stay fixed, as padding and positions of many networks depend on them.
"""

import importlib
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from pathlib import Path

import torch
from torch import nn

from tutelage.deploy.model_folder import Model
from tutelage.errors import TutelageError, UsageError
from tutelage.files import write_with
from tutelage.frozen import answer
from tutelage.networks.build import device_of
from tutelage.speed.runners import missing_onnx, open_session, random_images

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
RELATIVE = 1e-3  # of the logits' standard deviation, by which the exported network may differ
CHECKED = 5  # images that both are asked about; not the number of the example that is traced


def check_onnx() -> None:
    """Raises UsageError where a package that is needed is missing."""
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UsageError(missing_onnx(error)) from error


def export_onnx(model: Model, file: Path) -> None:
    """Write the network, in float32, as an ONNX file.

    Raises UsageError where a package is missing, TutelageError where the network can't be exported.
    """
    check_onnx()
    module = _on_cpu(model)
    images = random_images(2, model.net.img_size)

    def write(part: Path) -> None:
        with _quiet():
            torch.onnx.export(
                module, (images,), str(part), dynamo=True, verbose=False, external_data=False,
                input_names=["images"], output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )  # fmt: skip

    try:
        write_with(file, write)
    except (TutelageError, OSError, MemoryError):
        raise
    except Exception as error:  # the exporter raises whatever its passes do
        raise TutelageError(
            f"{model.net.name} can't be exported: {_last(error)}; leave out --latency onnx"
        ) from error


def parity(model: Model, file: Path) -> float:
    """The largest difference of logits over their standard deviation, on random images.

    Relative, because logits of an untrained network may be millionths. Raises TutelageError where
    the exported network answers otherwise.
    """
    images = random_images(CHECKED, model.net.img_size)
    with torch.inference_mode():
        wanted = answer(_on_cpu(model), images, "fp32")
    session = open_session(file, torch.get_num_threads())
    (given,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    found = torch.from_numpy(given)
    off = (found - wanted).abs().max()
    relative = float(off / wanted.std())
    best = wanted.topk(2).values
    clear = best[:, 0] - best[:, 1] > 2 * RELATIVE * wanted.std()
    same = (found.argmax(-1) == wanted.argmax(-1)) | ~clear
    if not relative <= RELATIVE or not bool(same.all()):  # NaN is no small difference
        raise TutelageError(
            f"the exported {model.net.name} answers otherwise: its logits differ by {relative:.1e} "
            "of their standard deviation; leave out --latency onnx"
        )
    return relative


def _on_cpu(model: Model) -> nn.Module:
    """The network itself, or a copy where it is on another device."""
    module = model.module
    return (module if device_of(module).type == "cpu" else deepcopy(module).cpu()).eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's warnings and progress are about its own insides."""
    before, aside = logging.root.manager.disable, io.StringIO()
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(aside), redirect_stderr(aside):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _last(error: Exception) -> str:
    """What it comes down to: the first line of the cause."""
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"[:200]
