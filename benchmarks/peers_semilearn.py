"""semilearn's FixMatch on labels and pool: its algorithm, views, optimizer and average.

What had to be done for a machine without a GPU, as semilearn knows no other: `.cuda()` and events
are made to do nothing, and mixed precision is the CPU's bfloat16. aim, wandb and torchaudio, which
it imports and which are not used here, are empty modules: its newest torchaudio was built for
another CUDA than its newest torch, and the other two report to servers.
Its settings are its own for CIFAR-10 (SGD with 0.03, weight decay 5e-4, threshold 0.95, hard
labels), but for a batch of 64 with 4 pool images each, as tutelage's FixMatch has, in place of 7,
and an average that forgets in a tenth of the steps where these are few: 0.999 would be made of the
first weights. The labeled images are in the pool too, as it does by default.
"""

import random
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import RandomSampler
from torchvision import transforms as t

from benchmarks.peers_job import BATCH, Job, Saver, classes, images, main_of, truth, write_answers
from benchmarks.peers_network import MEAN, STD, network, normalized

RATIO = 4  # pool images for each labeled one
EMPTY = ("torchaudio", "aim", "wandb")
WEIGHTS = "weights.pt"


class Silent:
    """In the place of CUDA's events."""

    def __init__(self, enable_timing: bool = False) -> None:
        """As CUDA's."""

    def record(self) -> None:
        """Do nothing."""

    def elapsed_time(self, other: "Silent") -> float:
        """No time."""
        return 0.0


def without_cuda() -> None:
    """Let what semilearn does on a GPU be done on the CPU."""
    for name in EMPTY:
        module = types.ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        sys.modules[name] = module
    Tensor.cuda = lambda self, *where: self
    nn.Module.cuda = lambda self, *where: self
    torch.cuda.set_device = lambda device: None
    torch.cuda.synchronize = lambda: None
    torch.cuda.Event = Silent


class Adapted(nn.Module):
    """The network as semilearn calls it."""

    def __init__(self, num_classes: int) -> None:
        """New weights."""
        super().__init__()
        self.net = network(num_classes)

    def forward(self, seen: Tensor) -> dict[str, Tensor]:
        """Logits (B, K) and features (B, D)."""
        features = self.net.forward_head(self.net.forward_features(seen), pre_logits=True)
        return {"logits": self.net.get_classifier()(features), "feat": features}


def config_of(job: Job) -> dict[str, object]:
    """What semilearn is asked."""
    return {
        "algorithm": "fixmatch", "net": "wrn_28_2", "dataset": "none", "gpu": 0, "rank": 0,
        "num_classes": len(classes(job)), "num_train_iter": job.steps, "epoch": 1,
        "num_eval_iter": job.steps + 1, "num_log_iter": job.steps + 1, "batch_size": BATCH,
        "uratio": RATIO, "eval_batch_size": BATCH, "optim": "SGD", "lr": 0.03, "momentum": 0.9,
        "weight_decay": 5e-4, "ema_m": min(0.999, 1 - 10 / max(job.steps, 20)), "amp": False,
        "img_size": job.side, "crop_ratio": 0.875, "save_dir": str(job.file("run")),
        "save_name": "fixmatch", "distributed": False, "world_size": 1, "num_workers": 1,
        "hard_label": True, "T": 0.5, "p_cutoff": 0.95,
    }  # fmt: skip


def views(job: Job) -> tuple[t.Compose, t.Compose]:
    """Weak and strong, as semilearn's for CIFAR-10."""
    from semilearn.datasets.augmentation import RandAugment

    side = job.side
    first = [t.Resize(side), t.RandomCrop(side, padding=side // 8, padding_mode="reflect")]
    first += [t.RandomHorizontalFlip()] if job.flip else []
    last = [t.ToTensor(), t.Normalize(MEAN, STD)]
    return t.Compose([*first, *last]), t.Compose([*first, RandAugment(3, 5), *last])


def pixels(paths: list[Path]) -> np.ndarray:
    """Images (N, H, W, 3)."""
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])


def loaders(job: Job, config: Any) -> dict[str, Any]:
    """semilearn's loaders of labels and of the pool, which has the labeled images too."""
    import semilearn

    labeled, labels = pixels(images(job.part("labeled"))), truth(job, "labeled")
    pool = np.concatenate([pixels(images(job.part("unlabeled"))), labeled])
    (weak, strong), count = views(job), config.num_classes
    dataset, generator = semilearn.BasicDataset, torch.Generator().manual_seed(job.seed)
    parts = {
        "train_lb": (dataset("fixmatch", labeled, labels, count, weak, False, strong), BATCH),
        "train_ulb": (dataset("fixmatch", pool, None, count, weak, True, strong), BATCH * RATIO),
    }
    found = {}
    for name, (part, batch) in parts.items():
        sampler = RandomSampler(part, num_samples=job.steps * batch, generator=generator)
        found[name] = semilearn.get_data_loader(
            config, part, batch, data_sampler=sampler, num_workers=1
        )
    return found


def keeping(job: Job) -> Any:
    """A hook that saves the average now and then, and at the last step."""
    from semilearn.core.hooks import Hook

    class Keep(Hook):
        """As semilearn calls it after each step."""

        saver = Saver()

        def after_train_step(self, algorithm: Any) -> None:
            """The average was moved already."""
            if self.saver.due() or algorithm.it + 1 >= job.steps:
                torch.save(algorithm.ema_model.net.state_dict(), job.file("saving.pt"))
                job.file("saving.pt").replace(job.file(WEIGHTS))

    return Keep()


def train(job: Job) -> None:
    """Train for the steps by semilearn's own loop, without its evaluations on the way."""
    without_cuda()
    import semilearn

    torch.manual_seed(job.seed)
    np.random.seed(job.seed)
    random.seed(job.seed)
    torch.set_num_threads(job.threads)
    config = semilearn.get_config(config_of(job))

    def builder(num_classes: int, pretrained: bool = False, pretrained_path: str = "") -> Adapted:
        return Adapted(num_classes)

    algorithm = semilearn.get_algorithm(config, builder, tb_log=None, logger=None)
    algorithm.amp_cm = lambda: torch.autocast("cpu", torch.bfloat16)
    algorithm.loader_dict = loaders(job, config)
    algorithm.register_hook(keeping(job), "Keep", "LOWEST")
    for name in ("EvaluationHook", "CheckpointHook", "LoggingHook"):
        algorithm._hooks.remove(algorithm.hooks_dict.pop(name))
    algorithm.train()


def predict(job: Job) -> None:
    """Answers of the averaged weights."""
    model = network(len(classes(job)))
    model.load_state_dict(torch.load(job.file(WEIGHTS), weights_only=True))
    model.eval()
    see = t.Compose([t.Resize(job.side), t.ToTensor()])
    answers = []
    paths = images(job.part("test"))
    with torch.inference_mode():
        for first in range(0, len(paths), 100):
            seen = [see(Image.open(path).convert("RGB")) for path in paths[first : first + 100]]
            answers += model(normalized(torch.stack(seen))).argmax(1).tolist()
    write_answers(job, "semilearn", answers)


if __name__ == "__main__":
    main_of(train, predict)
