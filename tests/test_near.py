import time

import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import listed, picture, smooth_batch
from PIL import Image

from tutelage.data import near
from tutelage.data.examine import examine
from tutelage.data.near import near_pairs, perceptual_hashes


def photo(seed, side=96):
    pixels = smooth_batch(seed, 1, 24)[0].mul(255).byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)


def looks(tmp_path, images):
    paths = [tmp_path / f"{i}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        image.save(path)
    return np.array([fact.look for fact in examine(listed(paths))], np.uint64)


def apart(one, other):
    return np.bitwise_count(one ^ other).tolist()


def test_the_hash_is_that_of_the_imagehash_package_but_for_rounding(tmp_path):
    photos = [photo(seed) for seed in range(20)]
    theirs = np.array([int(str(imagehash.phash(one)), 16) for one in photos], np.uint64)
    assert max(apart(looks(tmp_path, photos), theirs)) <= 2
    assert np.mean(apart(looks(tmp_path, photos), theirs)) < 1


def test_it_survives_resizing_and_compression_and_tells_other_photos_apart(tmp_path):
    photos = [photo(seed) for seed in range(20)]
    own = looks(tmp_path, photos)
    small = looks(tmp_path, [one.resize((40, 40), Image.Resampling.LANCZOS) for one in photos])
    assert max(apart(own, small)) <= near.NEAR
    for i, one in enumerate(photos):
        one.save(tmp_path / f"{i}.jpg", quality=60)
    packed = examine(listed([tmp_path / f"{i}.jpg" for i in range(20)]))
    assert max(apart(own, np.array([fact.look for fact in packed], np.uint64))) <= near.NEAR
    different = np.bitwise_count(own[:, None] ^ own[None])[~np.eye(20, dtype=bool)]
    assert different.min() > near.NEAR
    assert different.mean() == pytest.approx(32, abs=3)


def test_a_batch_is_hashed_like_each_image_alone():
    gray = np.random.default_rng(0).integers(0, 256, (9, 32, 32), np.uint8)
    alone = [perceptual_hashes(one[None])[0] for one in gray]
    assert perceptual_hashes(gray).tolist() == alone


def by_comparing_all(one, other, most):
    return {
        (i, j): distance
        for i, row in enumerate(np.bitwise_count(one[:, None] ^ other[None]).tolist())
        for j, distance in enumerate(row)
        if distance <= most
    }


def listed_pairs(found):
    rows = [tuple(map(int, row)) for some in found for row in zip(*some, strict=True)]
    pairs = {(first, second): bits for first, second, bits in rows}
    assert len(pairs) == len(rows), "each once"
    return pairs


@given(st.integers(0, 10**6), st.integers(0, 120), st.integers(0, 6), st.sampled_from([1, 7, 1000]))
def test_pairs_are_exactly_those_that_comparing_all_finds(seed, count, most, at_once):
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**63, max(1, count), np.uint64)
    for row in range(count // 2):  # so many are near an earlier one, or the same
        flips = rng.choice(64, rng.integers(0, 9), replace=False).astype(np.uint64)
        hashes[-1 - row] = hashes[row] ^ np.bitwise_or.reduce(np.uint64(1) << flips)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near, "PAIRS_AT_ONCE", at_once)
        within = listed_pairs(near_pairs(hashes, most=most))
        across = listed_pairs(near_pairs(hashes[:20], hashes[10:], most=most))
    every = by_comparing_all(hashes, hashes, most)
    assert within == {(i, j): bits for (i, j), bits in every.items() if i < j}
    assert across == by_comparing_all(hashes[:20], hashes[10:], most)


def test_a_hundred_thousand_hashes_take_about_a_second():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 100_000, np.uint64)
    hashes[-1] = hashes[0] ^ np.uint64(0b1011)
    start = time.process_time()
    assert listed_pairs(near_pairs(hashes)) == {(0, 99_999): 3}
    assert time.process_time() - start < 5  # comparing all would take minutes


def test_images_of_one_color_look_like_nothing(tmp_path):
    for i, color in enumerate(("red", "green")):
        Image.new("RGB", (32, 32), color).save(tmp_path / f"{i}.png")
    picture(0, 32).save(tmp_path / "2.png")
    facts = examine(listed(sorted(tmp_path.iterdir())))
    assert [fact.flat for fact in facts] == [True, True, False]
