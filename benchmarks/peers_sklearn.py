"""scikit-learn's LabelSpreading and SelfTrainingClassifier on frozen features of labels and pool.

There are no learned weights to take features from without a download, so the features are those of
the network that `tutelage train` makes of the labels in the time that is left, and the first
50 principal components of all training pixels. Each estimator is at its own settings: a graph of
7 neighbors, and logistic regression on standardized features with a threshold of 0.75.
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

from benchmarks.peers_job import SIDE, Job, images, main_of, truth, write_answers
from benchmarks.peers_tutelage import command, newest_model
from tutelage.deploy.model_folder import load_model

COMPONENTS = 50
FITTED = "fitted.pickle"


def estimators(seed: int) -> dict[str, Any]:
    """By name."""
    logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, random_state=seed))
    return {
        "spreading": LabelSpreading(kernel="knn", n_neighbors=7, max_iter=100),
        "selftraining": SelfTrainingClassifier(logistic),
    }


def pixels(job: Job, part: str) -> np.ndarray:
    """Images (N, 3, S, S) in [0, 1] of a part."""
    found = []
    for path in images(job.part(part)):
        image = Image.open(path).convert("RGB")
        if image.size != (SIDE, SIDE):
            image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        found.append(np.asarray(image, dtype=np.uint8))
    return np.stack(found).transpose(0, 3, 1, 2)


@torch.inference_mode()
def features(job: Job, seen: np.ndarray) -> np.ndarray:
    """What the trained network's classifier sees (N, D)."""
    module = load_model(newest_model(job.file("run"))).module.eval()
    net = module.net
    found = []
    for some in torch.from_numpy(seen).split(250):
        normal = (some / 255 - module.mean) / module.std
        found.append(net.forward_head(net.forward_features(normal), pre_logits=True))
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
    """Fit on pixels, train the network, fit on its features; keep each as soon as it is done."""
    torch.set_num_threads(job.threads)
    labels = np.array(truth(job, "labeled"))
    seen = np.concatenate([pixels(job, "labeled"), pixels(job, "unlabeled")])
    known = np.concatenate([labels, np.full(len(seen) - len(labels), -1)])
    fitted: dict[str, Any] = {"pca": PCA(COMPONENTS, random_state=job.seed).fit(flat(seen))}
    for space in ("pixels", "features"):
        if space == "features":
            subprocess.run(command(job, "train"), check=True)
        points = points_in(space, job, seen, fitted)
        for name, estimator in estimators(job.seed).items():
            fitted[f"{name}-{space}"] = estimator.fit(points, known)
            save(job, fitted)


def points_in(space: str, job: Job, seen: np.ndarray, fitted: dict[str, Any]) -> np.ndarray:
    """The images (N, D) as the estimators of that space see them."""
    return features(job, seen) if space == "features" else fitted["pca"].transform(flat(seen))


def predict(job: Job) -> None:
    """Answers of each estimator that was fitted in time."""
    fitted = pickle.loads(job.file(FITTED).read_bytes())  # our own file
    seen = pixels(job, "test")
    for name in [name for name in fitted if name != "pca"]:
        points = points_in(name.rpartition("-")[2], job, seen, fitted)
        write_answers(job, name, fitted[name].predict(points))


if __name__ == "__main__":
    main_of(train, predict)
