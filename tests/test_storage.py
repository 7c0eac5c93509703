"""Images on other storages: an S3 server that is run here, and what is said where it refuses."""

import logging
import sys
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pytest
from source_kinds import CLASSES, EXAMPLES, LABELS, RGB, csv, folder, npz, parquet_folder, png

from tutelage.cli import main
from tutelage.data import decode, storage
from tutelage.data.find import open_source
from tutelage.data.parts import labeled_images
from tutelage.errors import UsageError

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}


@pytest.fixture(scope="module")
def server():
    """The address of an S3 server on a free port."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    one = ThreadedMotoServer(port=0, verbose=False)
    one.start()
    _, port = one.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    one.stop()


@pytest.fixture
def bucket(server, monkeypatch, tmp_path):
    """A bucket's file system, and the environment in which it is found."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    if not files.exists("images"):
        files.mkdir("images")
    fsspec.filesystem("s3").clear_instance_cache()
    yield files
    fsspec.filesystem("s3").clear_instance_cache()


def put(files, root, write):
    root.mkdir()
    inside = write(root, None)
    for path in root.rglob("*"):
        if path.is_file():
            files.pipe(f"images/{write.__name__}/{path.relative_to(root)}", path.read_bytes())
    return f"s3://images/{write.__name__}/{inside}".rstrip("/")


@pytest.mark.parametrize("write", [folder, csv, parquet_folder, npz])
def test_a_bucket_gives_the_same_images_to_many_threads(bucket, write, tmp_path):
    source = open_source(put(bucket, tmp_path / "data", write))
    kind = next(example.kind for example in EXAMPLES if example.write is write)
    assert type(source).__name__ == kind
    images, issues = labeled_images(source, "labeled")
    assert [issue for issue in issues if issue.severity != "note"] == []
    assert images.classes == CLASSES
    assert list(images.labels) == LABELS
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(source.read, images.names * 2))
    pixels = [np.asarray(decode.read(raw)).tobytes() for raw in found]
    assert pixels == [image.tobytes() for image in RGB] * 2
    assert source.where(images.names[0]).startswith("s3://images/")


def test_a_table_here_may_name_images_in_a_bucket(bucket, tmp_path):
    bucket.pipe("images/loose/a b.png", png(0))
    path = tmp_path / "data.csv"
    path.write_text("path,label\ns3://images/loose/a b.png,x\n")
    source = open_source(path)
    images, _ = labeled_images(source, "test")
    assert source.read(images.names[0]) == png(0)


def test_a_stamp_is_the_same_until_the_file_changes_even_within_a_second(bucket, tmp_path):
    address = put(bucket, tmp_path / "data", folder)
    name = "0/00.png"
    before = open_source(address).stamp(name)
    assert open_source(address).stamp(name) == before
    assert storage.stamp(f"{address}/{name}") == before
    other = bytearray(png(0))
    other[-1] ^= 1
    bucket.pipe(f"images/folder/{name}", bytes(other))
    assert open_source(address).stamp(name) != before


def test_a_part_of_a_file_is_read_and_a_short_one_is_said(bucket):
    bucket.pipe("images/bytes.bin", bytes(range(100)))
    assert storage.read_range("s3://images/bytes.bin", 10, 5) == bytes(range(10, 15))
    with pytest.raises(OSError, match="ends after 100 bytes"):
        storage.read_range("s3://images/bytes.bin", 90, 20)


@pytest.mark.parametrize("address", ["s3://nobody-has-this/train", "s3://images/labelled"])
def test_a_missing_bucket_or_folder_is_said(bucket, address, tmp_path):
    put(bucket, tmp_path / "data", folder)
    with pytest.raises(UsageError, match=f"there is no folder or file {address}"):
        open_source(address)


def test_missing_credentials_are_said_with_what_to_set(bucket, monkeypatch):
    for name in KEYS:
        monkeypatch.delenv(name)
    with pytest.raises(UsageError, match=r"s3://images/folder.*AWS_ACCESS_KEY_ID"):
        open_source("s3://images/folder")


def test_a_missing_package_is_said_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UsageError, match=r"gs://images/folder.*pip install gcsfs"):
        open_source("gs://images/folder")


def test_an_unknown_protocol_is_said():
    with pytest.raises(UsageError, match="s4://images"):
        open_source("s4://images/folder")


def test_the_command_line_says_it_in_one_line(bucket, capsys, monkeypatch):
    assert main(["check", "--data", "s3://nobody-has-this/x"]) == 2
    said = capsys.readouterr().err
    assert "there is no folder or file s3://nobody-has-this/x" in said
    assert "nor is there s3://nobody-has-this" in said
    for name in KEYS:
        monkeypatch.delenv(name)
    bucket.clear_instance_cache()
    assert main(["check", "--data", "s3://images/folder"]) == 2
    assert "AWS_ACCESS_KEY_ID" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("folder", "name", "address"),
    [
        ("s3://bucket/tables", "../images/1.png", "s3://bucket/images/1.png"),
        ("s3://bucket", "images/../1.png", "s3://bucket/1.png"),
        ("s3://bucket", "../1.png", "s3://bucket/1.png"),
        ("https://host/a/b", "../c/1..png", "https://host/a/c/1..png"),
        ("s3://bucket/a", "1..2.png", "s3://bucket/a/1..2.png"),
    ],
)
def test_a_path_may_lead_out_of_its_folder_where_folders_are_but_names(folder, name, address):
    assert storage.join(folder, name) == address
