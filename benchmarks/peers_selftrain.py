"""tutelage on labels and pool, by what `--method auto` takes; see peers_tutelage."""

from benchmarks.peers_job import Job, main_of, write_answers
from benchmarks.peers_tutelage import answers, train


def train_pool(job: Job) -> None:
    """Labels and pool."""
    train(job, "selftrain")


def predict_pool(job: Job) -> None:
    """Answers of the network that the run keeps."""
    write_answers(job, "auto", answers(job))


if __name__ == "__main__":
    main_of(train_pool, predict_pool)
