import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, t

from tutelage.evaluation.intervals import Accuracy, student, wilson

COUNTS = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(COUNTS)
def test_the_interval_is_scipys_wilson_interval(counts):
    right, total = counts
    expected = binomtest(right, total).proportion_ci(0.95, method="wilson")
    assert wilson(right, total) == pytest.approx((expected.low, expected.high), abs=1e-6)


@given(COUNTS)
def test_the_interval_holds_the_share_and_mirrors(counts):
    right, total = counts
    low, high = wilson(right, total)
    assert 0 <= low <= right / total + 1e-12
    assert right / total - 1e-12 <= high <= 1
    mirrored = wilson(total - right, total)
    assert (1 - high, 1 - low) == pytest.approx(mirrored, abs=1e-9)


def test_published_values_of_the_interval():
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3
    for (right, total), expected in {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }.items():
        assert wilson(right, total) == pytest.approx(expected, abs=5.1e-5)


def test_an_accuracy_says_its_share_interval_and_images():
    accuracy = Accuracy(1662, 2000)
    assert accuracy.value == 0.831
    assert accuracy.interval == wilson(1662, 2000)
    assert str(accuracy) == "83.1 % (81.4 % to 84.7 %, 2,000 images)"


@pytest.mark.parametrize("freedom", [3, 4, 7, 20, 500])
def test_the_quantile_is_scipys_of_students_t(freedom):
    assert student(freedom) == pytest.approx(t.ppf(0.975, freedom), rel=0.01)
