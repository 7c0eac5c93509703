"""timm on the labels: its loader, augmentation, loss, optimizer, schedule, and average.

timm's package has no training script (train.py is in its repository alone), so this is the loop
that the script goes through, of the parts that the script is made of, without validation.
Optimizer, schedule, dropout, smoothing and strength of augmentation are those of tutelage's
defaults, where timm has them, so that no arm is worse for being less tuned; crops keep 60 % of an
image or more, as timm's 8 % are for photos of 224 pixels. With published weights images are
channels-last, as on a CPU that is faster.
"""

import torch
from timm.data import create_dataset, create_loader
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3, random_seed
from torch.utils.data import DataLoader

from benchmarks.peers_job import BATCH, Job, Saver, classes, images, main_of, write_answers
from benchmarks.peers_network import MEAN, STD, network

CPU = torch.device("cpu")
WEIGHTS = "weights.pt"
NEW = {"opt": "sgd", "lr": 0.1, "weight_decay": 1e-3}
GIVEN = {"opt": "adamw", "lr": 3e-4, "weight_decay": 0.05}


def loader(job: Job, part: str, *, training: bool) -> DataLoader:
    """timm's loader of a part."""
    labels = {name: k for k, name in enumerate(classes(job))}
    dataset = create_dataset("", root=str(job.part(part)), split="", class_map=labels)
    views = {
        "scale": (0.6, 1.0), "hflip": 0.5 if job.flip else 0.0, "re_prob": 0.25,
        "re_mode": "pixel", "auto_augment": "rand-m5-mstd0.5-inc1",
    }  # fmt: skip
    return create_loader(
        dataset, (3, job.side, job.side), BATCH, is_training=training, mean=MEAN, std=STD,
        crop_pct=1.0, interpolation="bicubic", num_workers=1 if training else 0, device=CPU,
        pin_memory=False, persistent_workers=training, **views if training else {},
    )  # fmt: skip


def train(job: Job) -> None:
    """Train for the steps."""
    random_seed(job.seed)
    torch.set_num_threads(job.threads)
    model = network(len(classes(job)), dropout=0.1, drop_path=0.05, weights=job.weights)
    order = torch.channels_last if job.weights else torch.contiguous_format
    model.to(memory_format=order)
    how = GIVEN if job.weights else NEW
    optimizer = create_optimizer_v2(model, momentum=0.9, **how)
    warm = round(0.05 * job.steps)
    scheduler = CosineLRScheduler(
        optimizer, t_initial=job.steps, warmup_t=warm, warmup_prefix=False, t_in_epochs=False
    )
    average = ModelEmaV3(model, decay=0.999, use_warmup=True)
    loss_of, batches, saver = LabelSmoothingCrossEntropy(0.1), loader(
        job, "labeled", training=True
    ), Saver()  # fmt: skip
    step, epoch = 0, 0
    while step < job.steps:
        model.train()
        for seen, labels in batches:
            with torch.autocast("cpu", torch.bfloat16, enabled=not job.weights):
                loss = loss_of(model(seen.contiguous(memory_format=order)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            average.update(model, step=step)
            scheduler.step_update(step)
            if step == job.steps or saver.due():
                torch.save(average.module.state_dict(), job.file("saving.pt"))
                job.file("saving.pt").replace(job.file(WEIGHTS))
            if step == job.steps:
                break
        epoch += 1


def predict(job: Job) -> None:
    """Answers of the averaged weights."""
    model = network(len(classes(job)), weights=job.weights)
    model.load_state_dict(torch.load(job.file(WEIGHTS), weights_only=True))
    model.eval()
    batches = loader(job, "test", training=False)
    names = [batches.dataset.filename(k) for k in range(len(batches.dataset))]
    with torch.inference_mode():
        found = torch.cat([model(seen).argmax(1) for seen, _ in batches]).tolist()
    answers = dict(zip(names, found, strict=True))
    test = job.part("test")
    write_answers(job, "timm", [answers[str(path.relative_to(test))] for path in images(test)])


if __name__ == "__main__":
    main_of(train, predict)
