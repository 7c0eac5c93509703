"""scikit-learn's LabelSpreading and SelfTrainingClassifier on frozen features of labels and pool,
and its LogisticRegression on those of the labels alone.

The features are those of the published weights or, where all arms begin with new ones, of the
network that `tutelage train` makes of the labels in the time that is left; and the first 50
principal components of all training pixels. Each estimator is at its own settings: a graph of
7 neighbors, and logistic regression on standardized features, for the pool with a threshold of
0.75.
"""

import pickle
import subprocess
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier

from benchmarks.peers_job import BATCH, Job, images, main_of, truth, write_answers
from benchmarks.peers_network import MEAN, STD, network
from benchmarks.peers_tutelage import command, newest_model
from tutelage.deploy.model_folder import load_model
from tutelage.networks.build import Normalized

COMPONENTS, PIXELS = 50, 32  # of images of so many pixels
FITTED = "fitted.pickle"


def estimators(seed: int) -> dict[str, Any]:
    """By name."""
    logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, random_state=seed))
    return {
        "spreading": LabelSpreading(kernel="knn", n_neighbors=7, max_iter=100),
        "selftraining": SelfTrainingClassifier(logistic),
        "logistic": logistic,
    }


def pixels(job: Job, part: str, side: int) -> np.ndarray:
    """Images (N, 3, S, S) of bytes, of a part."""
    found = []
    for path in images(job.part(part)):
        image = Image.open(path).convert("RGB")
        if image.size != (side, side):
            image = image.resize((side, side), Image.Resampling.BICUBIC)
        found.append(np.asarray(image, dtype=np.uint8))
    return np.stack(found).transpose(0, 3, 1, 2)


@torch.inference_mode()
def features(job: Job, parts: tuple[str, ...]) -> np.ndarray:
    """What the classifier of the network sees (N, D)."""
    if job.weights:
        module = Normalized(network(0, weights=job.weights), MEAN, STD).eval()
    else:
        module = load_model(newest_model(job.file("run"))).module
        module.net.reset_classifier(0)
    found = []
    for part in parts:
        for some in torch.from_numpy(pixels(job, part, job.side)).split(BATCH):
            found.append(module((some / 255).contiguous(memory_format=torch.channels_last)))
    return torch.cat(found).float().numpy()


def flat(seen: np.ndarray) -> np.ndarray:
    """Pixels (N, 3 S S) in [0, 1]."""
    return (seen.reshape(len(seen), -1) / 255).astype(np.float32)


def save(job: Job, fitted: dict[str, Any]) -> None:
    """Keep all that is fitted by now, whole or not at all."""
    part = job.file("saving.pickle")
    part.write_bytes(pickle.dumps(fitted))
    part.replace(job.file(FITTED))


def train(job: Job) -> None:
    """Fit on pixels, train the network unless it is published, fit on its features; keep each as
    soon as it is done."""
    torch.set_num_threads(job.threads)
    labels = np.array(truth(job, "labeled"))
    known = np.concatenate([labels, np.full(len(images(job.part("unlabeled"))), -1)])
    fitted: dict[str, Any] = {}
    for space in ("features",) if job.weights else ("pixels", "features"):
        if space == "features" and not job.weights:
            subprocess.run(command(job, "train"), check=True)
        points = points_in(space, job, ("labeled", "unlabeled"), fitted)
        for name, estimator in estimators(job.seed).items():
            some = slice(len(labels) if name == "logistic" else None)
            fitted[f"{name}-{space}"] = estimator.fit(points[some], known[some])
            save(job, fitted)


def points_in(space: str, job: Job, parts: tuple[str, ...], fitted: dict[str, Any]) -> np.ndarray:
    """The images (N, D) of some parts as the estimators of that space see them."""
    if space == "features":
        return features(job, parts)
    seen = flat(np.concatenate([pixels(job, part, PIXELS) for part in parts]))
    if "pca" not in fitted:
        fitted["pca"] = PCA(COMPONENTS, random_state=job.seed).fit(seen)
    return fitted["pca"].transform(seen)


def predict(job: Job) -> None:
    """Answers of each estimator that was fitted in time."""
    torch.set_num_threads(job.threads)
    fitted = pickle.loads(job.file(FITTED).read_bytes())  # our own file
    names = [name for name in fitted if name != "pca"]
    for space in dict.fromkeys(name.rpartition("-")[2] for name in names):
        points = points_in(space, job, ("test",), fitted)
        for name in [name for name in names if name.endswith(space)]:
            write_answers(job, name, fitted[name].predict(points))


if __name__ == "__main__":
    main_of(train, predict)
