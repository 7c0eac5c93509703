"""A model as a folder: weights, class names and preprocessing, and nothing else needed."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.data import storage
from tutelage.errors import Damaged, UsageError
from tutelage.evaluation.calibrated import Calibration
from tutelage.evaluation.image_size import canvas_at
from tutelage.files import read_json, write_json, write_text
from tutelage.networks.build import Net, weight_digest
from tutelage.networks.input_size import at_input_size
from tutelage.values import from_plain, to_plain
from tutelage.weights import AGAIN, MIDDLE, WEIGHTS, load_weights, save_weights

FORMAT = 1  # of config.json
LARGEST_SIDE = 2**14  # pixels


@dataclass(frozen=True)
class Model:
    """A trained network with all that is needed to use it."""

    module: nn.Module  # images (B, 3, S, S) in [0, 1] -> logits (B, K)
    net: Net
    classes: tuple[str, ...]
    canvas: int  # pixels; the shorter side is resized to it, then the center is cut out
    calibration: Calibration | None = None  # of its confidences; None: not done, as in old models

    def probs(self, raw: Tensor) -> Tensor:
        """The network's probabilities (N, K), calibrated where that was done."""
        return raw if self.calibration is None else self.calibration.probs(raw)

    def config(self) -> dict[str, object]:
        """config.json's content."""
        more = {} if self.calibration is None else {"calibration": to_plain(self.calibration)}
        return {
            "format": FORMAT,
            "net": to_plain(self.net),
            "classes": list(self.classes),
            "preprocessing": {
                "resize_shorter_side": self.canvas,
                "center_crop": self.net.img_size,
                "interpolation": "bicubic",
                "range": [0, 1],
                "normalization": "in the network: buffers mean and std",
            },
            "weights": weight_digest(self.module),
            **more,
        }


def save_model(folder: Path, model: Model, card: str) -> None:
    """Write model.safetensors, README.md and, last, config.json."""
    save_weights(folder / WEIGHTS, model.module)
    write_text(folder / "README.md", card)
    write_json(folder / "config.json", model.config())


def save_calibration(path: Path, model: Model) -> Path:
    """Write config.json anew, of the run folder or model folder that the model was loaded from."""
    file = _folder(Path(path)) / "config.json"
    write_json(file, model.config())
    return file


def is_model(path: Path) -> bool:
    """Whether the path is a run folder or a model folder."""
    return (path / "run.json").exists() or (path / "config.json").exists()


def load_model(path: Path | str, device: torch.device | None = None) -> Model:
    """The model of a run folder or a model folder.

    Raises UsageError where there is none, and Damaged where its files are not as they were
    written, or the weights aren't the ones config.json names.
    """
    path = Path(path)
    folder = _folder(path)
    if not (folder / "config.json").exists():
        state = "the run has not finished yet: the command that began it goes on"
        if folder == path:
            why = "it has no config.json" if path.exists() else "there is no such folder"
            near = "" if path.exists() else storage.nearby(str(path))
            state = f"{why}{near or '; give a finished run, or its folder model/'}"
        raise UsageError(f"{path} holds no model: {state}")
    config = _read_config(folder / "config.json")
    net, digest = from_plain(Net, config["net"]), str(config["weights"])
    weights = folder / WEIGHTS
    module = load_weights(weights, net, device or torch.device("cpu"), digest=digest)
    canvas = config["preprocessing"]["resize_shorter_side"]
    return Model(module, net, tuple(config["classes"]), canvas, calibration_in(config))


def _read_config(file: Path) -> dict[str, Any]:
    """A config.json with all that a model needs.

    Raises Damaged where something is missing, UsageError for another format.
    """
    config = read_json(file)
    wrong = _wrong_in(config)
    if wrong:
        raise Damaged(f"{file} is damaged ({wrong}): {AGAIN}")
    if config["format"] != FORMAT:
        raise UsageError(
            f"{file} has format {config['format']}, and this version reads {FORMAT}: use the "
            "version of tutelage that has written it"
        )
    found: dict[str, Any] = config
    return found


def _wrong_in(config: Any) -> str:
    """What a config lacks; "" where it is whole."""
    kinds = {"format": int, "net": dict, "weights": str, "preprocessing": dict, "classes": list}
    for key, kind in kinds.items():
        if not isinstance(config, dict) or not isinstance(config.get(key), kind):
            return f"it has no {key}, or one of another kind"
    canvas = config["preprocessing"].get("resize_shorter_side")
    if not isinstance(canvas, int) or not 0 < canvas <= LARGEST_SIDE:
        return f"{canvas!r} pixels are no image size"
    if not all(isinstance(name, str) for name in config["classes"]):
        return "its classes are not all text"
    if len(config["classes"]) != config["net"].get("num_classes"):
        return "it has not one name for each class"
    if not isinstance(config.get("calibration", {}), dict):
        return "its calibration is no mapping"
    return ""


def calibration_in(config: dict[str, Any]) -> Calibration | None:
    """The calibration that a config.json has; None where it was not done."""
    if "calibration" not in config:
        return None
    return from_plain(Calibration, config["calibration"], "calibration.")


def _folder(path: Path) -> Path:
    """The model folder of a run folder, or itself."""
    return path / "model" if (path / "run.json").exists() else path


def model_at(model: Model, size: int) -> Model:
    """The model for images of `size` pixels, which show as much of each image: to ask, not to save.

    Another size than it was calibrated at has no calibration, as it may be sure of other things.
    Raises UsageError where the network can't take the size.
    """
    trained = model.net.img_size
    return replace(
        model,
        module=at_input_size(model.module, model.net, size),
        net=replace(model.net, img_size=size),
        canvas=canvas_at(size, trained=trained, canvas=model.canvas),
        calibration=model.calibration if size == trained else None,
    )


def folder_of(path: Path) -> Path | None:
    """The run, model or round folder at a path, or around its weights; None where none is."""
    if path.name == WEIGHTS and is_model(path.parent):
        return path.parent
    return path if is_model(path) else None


def trained_in(path: Path) -> Path | None:
    """`folder_of` a path, or the round that halfway.safetensors lies in, which isn't its model."""
    return path.parent if path.name == MIDDLE and is_model(path.parent) else folder_of(path)


def run_of(folder: Path) -> Path | None:
    """The run that a folder is, or is a part of; None where it stands alone."""
    path = folder.absolute()
    if path.name == "model":
        path = path.parent
    if path.parent.name == "rounds":
        path = path.parent.parent
    return path if (path / "run.json").exists() else None
