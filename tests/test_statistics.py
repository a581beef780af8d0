"""The chapter's statistics against statsmodels and scipy where those have them, by simulation where they have not (2,000 draws each)."""

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from helpers import CourseError
from helpers.agree import planning
from helpers.measure import agreement, intervals

DRAWS = 2000


# Where a library has it: equal to 1e-9 -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "right, n", [(0, 7), (1, 1), (9, 10), (116, 200), (199, 200), (200, 200), (3, 5000)]
)
def test_wilson(right, n):
    found = intervals.share(np.arange(n) < right)
    ours = np.array([found.low, found.high])
    assert ours == pytest.approx(proportion_confint(right, n, method="wilson"), abs=1e-9)
    assert ours == pytest.approx(binomtest(right, n).proportion_ci(method="wilson"), abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_exact_mcnemar(seed):
    draw = np.random.default_rng(seed)
    a, b = draw.random(150) < 0.7, draw.random(150) < 0.5
    found = intervals.compare(a, b)
    table = [[int((a & b).sum()), int((a & ~b).sum())], [int((~a & b).sum()), int((~a & ~b).sum())]]
    assert found.p == pytest.approx(mcnemar(table, exact=True).pvalue, abs=1e-9)
    assert found.p == pytest.approx(
        binomtest(int((a & ~b).sum()), int((a != b).sum())).pvalue, abs=1e-9
    )


def test_the_bootstrap_is_scipys():
    draw = np.random.default_rng(1)
    a, b = draw.random(120) < 0.7, draw.random(120) < 0.6
    found = intervals.compare(a, b, seed=5)
    theirs = bootstrap(
        (a.astype(float) - b,),
        np.mean,
        n_resamples=10_000,
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(theirs), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_kappa_is_scikit_learns(seed):
    draw = np.random.default_rng(seed)
    first = draw.choice(["a", "b", "c"], 80).tolist()
    second = [x if draw.random() < 0.7 else str(draw.choice(["a", "b", "c"])) for x in first]
    assert agreement.kappa(first, second).kappa == pytest.approx(
        cohen_kappa_score(first, second), abs=1e-9
    )


@pytest.mark.parametrize("n, gain, discordant", [(60, 0.1, 0.2), (200, 0.09, 0.2), (25, 0.3, 0.4)])
def test_power_is_scipys_test_summed_over_every_outcome(n, gain, discordant):
    win, found = (discordant + gain) / (2 * discordant), 0.0
    for d in range(n + 1):
        reject = [k for k in range(d + 1) if d and binomtest(k, d).pvalue <= 0.05]
        from scipy.stats import binom

        found += binom.pmf(d, n, discordant) * binom.pmf(reject, d, win).sum()
    assert planning.paired_power(n, gain, discordant) == pytest.approx(found, abs=1e-9)


def test_without_clusters_the_clustered_error_is_the_usual_one():
    values = np.random.default_rng(0).random(90) < 0.4
    mean, error, count = intervals.clustered_error(values, range(90))
    assert (mean, count) == (values.mean(), 90) and error == pytest.approx(
        values.std(ddof=1) / np.sqrt(90), abs=1e-12
    )


def test_the_clustered_error_is_millers_sum_over_clusters():
    draw = np.random.default_rng(3)
    clusters = np.repeat(np.arange(30), draw.integers(1, 6, 30))
    values = (draw.random(30)[clusters] > draw.random(clusters.size)).astype(float)
    sums = np.bincount(clusters, weights=values - values.mean())
    by_hand = np.sqrt(30 / 29 * (sums**2).sum()) / values.size
    mean, error, count = intervals.clustered_error(values, clusters)
    assert (mean, count) == (values.mean(), 30) and error == pytest.approx(by_hand, abs=1e-9)


def test_a_bootstrap_of_two_columns_keeps_their_rows_together():
    draw = np.random.default_rng(0)
    a = draw.random(80)
    b = a + draw.normal(0, 0.01, 80)

    def gap(x, y):
        return float(np.mean(x) - np.mean(y))

    low, high = intervals.bootstrap_interval([a, b], seed=1, draws=500, statistic=gap)
    assert high - low < 0.02, "drawn apart, two columns of that spread would be 0.2 wide"
    assert intervals.bootstrap_interval([0.5] * 10) == (0.5, 0.5)


def test_an_interval_over_students_and_tasks_is_as_wide_as_the_students_differ():
    draw = np.random.default_rng(1)
    tasks = draw.random(200) < 0.5
    alike = np.array([tasks, tasks, tasks])
    same = intervals.over_seeds_and_tasks(alike)
    low, high = intervals.bootstrap_interval(tasks)
    assert same.value == tasks.mean() and (same.low, same.high) == pytest.approx(
        (low, high), abs=0.01
    )
    one, never = (intervals.over_seeds_and_tasks(arm) for arm in (alike[:1], 0 * alike))
    assert str(one) == str(intervals.share(tasks)) and (never.low, never.n) == (0, 200)
    assert never.high == pytest.approx(0.0188, abs=1e-3), "nobody ever: still no certainty"
    apart = np.array([np.ones(200), np.zeros(200), tasks])
    wide = intervals.over_seeds_and_tasks(apart)
    assert wide.low < 0.2 and wide.high > 0.8 and wide.n == 200
    # tasks are shared: what is right in both arms alike cannot widen their difference
    paired = intervals.over_seeds_and_tasks(alike, alike[:1])
    assert (paired.value, paired.low, paired.high) == pytest.approx((0, 0, 0), abs=1e-9)
    for wrong in ((apart, apart[:, :9]), (apart[:, :0],), (apart[:0],)):
        with pytest.raises(CourseError, match="same number"):
            intervals.over_seeds_and_tasks(*wrong)


# Where none has it: how often the 95 % interval covers the truth ---------------------------------------------


def threads(draw, count, size, share, alike):
    """Rows in threads whose share of right answers differs (beta-binomial, intra-class correlation `alike`): (right, thread)."""
    own = draw.beta(share * (1 - alike) / alike, (1 - share) * (1 - alike) / alike, count)
    place = np.repeat(np.arange(count), draw.integers(1, 2 * size, count))
    return draw.random(place.size) < own[place], place


@pytest.mark.parametrize(
    "count, size, share, alike", [(60, 3, 0.6, 0.3), (60, 3, 0.9, 0.3), (40, 5, 0.5, 0.5)]
)
def test_the_clustered_interval_covers_and_the_plain_one_does_not(count, size, share, alike):
    draw, hits, plain = np.random.default_rng(0), 0, 0
    for _ in range(DRAWS):
        right, place = threads(draw, count, size, share, alike)
        found, usual = intervals.clustered_share(right, place), intervals.share(right)
        hits += found.low <= share <= found.high
        plain += usual.low <= share <= usual.high
    assert 0.93 <= hits / DRAWS <= 0.97 and plain / DRAWS < 0.90


@pytest.mark.parametrize("share, n", [(0.58, 200), (0.2, 60)])
def test_wilson_covers(share, n):
    draws = np.random.default_rng(0).binomial(n, share, DRAWS)
    ends = {k: intervals.share(np.arange(n) < k) for k in set(draws.tolist())}
    assert 0.93 <= np.mean([ends[k].low <= share <= ends[k].high for k in draws.tolist()]) <= 0.97


@pytest.mark.parametrize(
    "truth, sensitivity, specificity, people",
    [(0.6, 0.8, 0.75, 100), (0.58, 0.85, 0.85, 40), (0.9, 0.9, 0.8, 40)],
)
def test_the_corrected_share_covers_and_the_judges_own_does_not(
    truth, sensitivity, specificity, people
):
    draw, hits, naive, n = np.random.default_rng(0), 0, 0, 200
    for _ in range(DRAWS):
        said = draw.binomial(n, truth * sensitivity + (1 - truth) * (1 - specificity))
        found = intervals.corrected_share(
            said / n,
            n,
            draw.binomial(people, sensitivity) / people,
            people,
            draw.binomial(people, specificity) / people,
            people,
        )
        usual = intervals.share(np.arange(n) < said)
        hits += found.low <= truth <= found.high
        naive += usual.low <= truth <= usual.high
    assert 0.93 <= hits / DRAWS <= 0.97 and naive / DRAWS < 0.91


def test_the_corrected_share_by_hand():
    found = intervals.corrected_share(0.8, 1000, 0.95, 1000, 0.70, 1000)
    assert found.value == pytest.approx(0.5 / 0.65) and found.low < 0.74 < 0.769 < 0.80 < found.high
    certain = intervals.corrected_share(0.4, 50, 1.0, 40, 1.0, 40)
    assert (
        certain.value == pytest.approx(0.4)
        and certain.low <= intervals.share(np.arange(50) < 20).low + 0.02
    )


# Input that cannot be ----------------------------------------------------------------------------------------


def test_all_right_is_no_certainty():
    found = intervals.clustered_share([True] * 90, [i // 3 for i in range(90)])
    assert found.value == found.high == 1.0 and found.low < intervals.share([True] * 90).low


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: intervals.clustered_share([], []), "no rows"),
        (lambda: intervals.clustered_share([True] * 3, ["a"] * 3), "one thread or template"),
        (lambda: intervals.clustered_share([True] * 3, ["a"] * 2), "Every row needs a cluster"),
        (lambda: intervals.corrected_share(0.5, 100, 0.5, 50, 0.5, 50), "better than chance"),
        (lambda: intervals.corrected_share(0.5, 100, 0.3, 50, 0.4, 50), "better than chance"),
        (lambda: intervals.corrected_share(0.5, 100, 0.9, 0, 0.9, 50), "rows that a person called"),
        (lambda: intervals.corrected_share(1.5, 100, 0.9, 10, 0.9, 50), "between 0 and 1"),
    ],
)
def test_bad_input_is_one_sentence(call, words):
    with pytest.raises(CourseError, match=words):
        call()
