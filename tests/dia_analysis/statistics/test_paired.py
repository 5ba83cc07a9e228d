"""Intervals of shares and differences: images of one patient count together."""

import numpy as np
import pytest

from dia_analysis.statistics.intervals import Patients
from dia_analysis.statistics.paired import clopper_pearson, mean_difference, share_difference

pytestmark = pytest.mark.numeric
INTERVALS = (clopper_pearson, mean_difference, share_difference)


def ends(found):
    return pytest.approx((found.value, found.low, found.high))


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("share", [0.3, 0.0])
def test_copies_of_an_image_count_once_and_images_of_their_own_patients_each(interval, share):
    one = (np.random.default_rng(0).random(40) < share).astype(float)
    alone = interval(one)
    apart = interval(one, Patients(np.arange(40)))
    copies = interval(np.repeat(one, 5), Patients(np.repeat(np.arange(40), 5)))
    assert (apart.value, apart.low, apart.high) == ends(alone)
    width = alone.high - alone.low
    assert (copies.value, copies.images) == (pytest.approx(alone.value), 200)
    # A sample's variance has n - 1 in its denominator, of 40 or of 200: the effective number differs by 2 %.
    assert copies.high - copies.low == pytest.approx(width, rel=0.03, abs=1e-12)
    assert np.ptp([interval(np.repeat(one, 5)).low, interval(np.repeat(one, 5)).high]) <= width


def test_patients_that_differ_as_much_as_images_do_change_little():
    random = np.random.default_rng(1)
    values = (random.random(600) < 0.4).astype(float)
    plain, grouped = clopper_pearson(values), clopper_pearson(values, Patients(np.repeat(np.arange(200), 3)))
    assert grouped.value == plain.value
    # The variance between 200 patients is known to sqrt(2 / 199) = 10 %, an interval to 5 %; three times that.
    assert grouped.high - grouped.low == pytest.approx(plain.high - plain.low, rel=0.15)


def test_one_patient_gives_no_interval_of_a_mean_and_a_wide_one_of_a_share():
    values, one = np.array([0.0, 1.0, 1.0, 0.0]), Patients(np.zeros(4, int))
    assert not mean_difference(values, one).has_interval
    assert clopper_pearson(values, one).low < 0.05
