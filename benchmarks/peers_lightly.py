"""lightly-train's image classification on the labels, through its public functions alone.

AGPL-3.0, so it is run in an environment of its own. Its settings are its own, but for those that
it has for learned weights and large photos: AdamW's rate is 1e-3 (it doubles that for a batch of
64) and decay 0.05, the AdamW settings with which tutelage's network did best on images kept apart
from every test (docs/results.md), smoothing is 0.1, and crops keep 60 % of an image or more. It
wants validation images: it gets one labeled image a class, and its last weights are judged.
"""

import os

import lightly_train
import torch
from PIL import Image

from benchmarks.peers_job import BATCH, Job, classes, images, main_of, write_answers
from benchmarks.peers_network import MEAN, NETWORK, STD


def train(job: Job) -> None:
    """Train for the steps."""
    torch.set_num_threads(job.threads)
    few = job.file("validation")
    for name in classes(job):
        (few / name).mkdir(parents=True, exist_ok=True)
        first = images(job.part("labeled") / name)[0]
        if not (few / name / first.name).exists():
            os.symlink(first.resolve(), few / name / first.name)
    views = {
        "image_size": (job.side, job.side), "normalize": {"mean": MEAN, "std": STD},
        "random_crop": {"min_scale": 0.6},
    }  # fmt: skip
    lightly_train.train_image_classification(
        out=str(job.file("run")),
        data={
            "train": str(job.part("labeled")), "val": str(few),
            "classes": dict(enumerate(classes(job))),
        },
        model=f"timm/{NETWORK}",
        steps=job.steps,
        batch_size=BATCH,
        num_workers=1,
        accelerator="cpu",
        devices=1,
        precision="bf16-mixed",
        seed=job.seed,
        overwrite=True,
        transform_args=views if job.flip else views | {"random_flip": None},
        model_args={"lr": 1e-3, "weight_decay": 0.05, "label_smoothing": 0.1},
        logger_args={"tensorboard": None},
        save_checkpoint_args={"save_every_num_steps": max(1, job.steps // 10)},
    )  # fmt: skip


def predict(job: Job) -> None:
    """Answers of the last weights, each image through the model's own preprocessing."""
    run = job.file("run")
    found = [run / "exported_models" / "exported_last.pt", run / "checkpoints" / "last.ckpt"]
    model = lightly_train.load_model(next(file for file in found if file.exists()), device="cpu")
    model.eval()
    answers = []
    with torch.inference_mode():
        for path in images(job.part("test")):
            answers.append(answer(model, Image.open(path).convert("RGB")))
    write_answers(job, "lightly", answers)


def answer(model: torch.nn.Module, image: Image.Image) -> int:
    """The surest class."""
    said = model.predict(image, topk=1)
    return int(said["labels"][0])


if __name__ == "__main__":
    main_of(train, predict)
