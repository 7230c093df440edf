from __future__ import annotations

import numpy as np
import pytest

from ld_export.quantize_calibration import FLOAT8_METHODS, choose_scales
from ld_export.quantize_plan import make_plan
from ld_export.quantize_scales import BINS, METHODS, Histogram, Method, largest_value, parse_methods
from ld_runtime.errors import ConfigError, DataError
from tests.export.quantize_networks import two_convs


def histogram(*batches: object) -> Histogram:
    result = Histogram()
    for batch in batches:
        result.add(np.asarray(batch, np.float32))
    return result


def test_counts_by_magnitude() -> None:
    found = histogram([[0.0, -1.0], [0.5, 1.0]])
    assert (found.top, found.peak) == (1.0, 1.0)
    assert found.counts[0] == 1
    assert found.counts[BINS // 2] == 1
    assert found.counts[BINS - 1] == 2


def test_the_range_doubles_and_loses_no_count() -> None:
    values = [0.2, 0.7, 1.0]
    found = histogram(values, [3.5])
    assert (found.top, found.peak) == (4.0, 3.5)
    assert found.counts.sum() == 4
    assert found.counts[int(3.5 / 4 * BINS)] == 1
    assert found.counts[int(0.2 / 4 * BINS)] == 1


def test_zeros_before_the_first_value() -> None:
    found = histogram(np.zeros(10), [2.0])
    assert (found.top, found.counts[0], found.counts.sum()) == (2.0, 10, 11)


def test_merging_is_counting_both() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(0, 1, 500), rng.normal(0, 3, 500)
    merged = histogram(one).merge(histogram(other))
    assert merged.counts.sum() == 1000
    assert merged.peak == np.float32(max(np.abs(one).max(), np.abs(other).max()))
    assert largest_value(merged, method="percentile_99.9", levels=127) == pytest.approx(
        largest_value(histogram(one, other), method="percentile_99.9", levels=127), rel=0.05
    )
    assert histogram(np.zeros(3)).merge(histogram([1.0])).counts[0] == 3
    both = histogram([1.0]).merge(histogram([4.0]))
    assert np.flatnonzero(both.counts).tolist() == [BINS // 4 - 1, BINS - 1]


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_of_zeros_has_some_scale(method: Method) -> None:
    assert largest_value(histogram(np.zeros(5)), method=method, levels=127) == 1.0


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_tensor_keeps_its_value(method: Method) -> None:
    assert largest_value(histogram(np.full(50, 3.0)), method=method, levels=127) == pytest.approx(3.0, rel=1e-3)


def test_percentile_by_hand() -> None:
    values = np.arange(1, 10_001) / 10_000  # evenly from 0 to 1
    assert largest_value(histogram(values), method="max", levels=127) == 1.0
    for method, share in (("percentile_99.9", 0.999), ("percentile_99.99", 0.9999)):
        found = largest_value(histogram(values), method=method, levels=127)  # type: ignore[arg-type]
        assert found == pytest.approx(share, abs=2 / BINS)
    outlier = histogram(np.append(values, 100))
    assert largest_value(outlier, method="percentile_99.9", levels=127) == pytest.approx(1.0, abs=200 / BINS)


@pytest.mark.parametrize("method", ["entropy", "mse"])
def test_one_outlier_is_cut_off(method: Method) -> None:
    values = np.random.default_rng(1).normal(0, 1, 400_000)
    found = histogram(np.append(values, 12.0))
    assert 2.0 < largest_value(found, method=method, levels=127) < 8.0
    assert largest_value(found, method="max", levels=127) == 12.0


def test_entropy_leaves_zeros_out() -> None:
    values = np.random.default_rng(4).normal(0, 1, 100_000)
    with_zeros = histogram(np.append(values, np.zeros(400_000)))
    assert largest_value(with_zeros, method="entropy", levels=127) == largest_value(
        histogram(values), method="entropy", levels=127
    )


@pytest.mark.parametrize("method", ["entropy", "mse"])
def test_an_even_distribution_is_not_cut(method: Method) -> None:
    values = np.random.default_rng(2).uniform(-2, 2, 100_000)
    assert largest_value(histogram(values), method=method, levels=127) > 1.9


def test_mse_has_the_least_error_of_all_methods() -> None:
    values = np.random.default_rng(3).laplace(0, 1, 50_000).astype(np.float32)
    found = histogram(values)

    def error(method: Method) -> float:
        step = largest_value(found, method=method, levels=127) / 127
        return float(np.mean((values - np.clip(np.rint(values / step), -127, 127) * step) ** 2))

    assert error("mse") <= min(error(method) for method in METHODS) * 1.01


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(value: float) -> None:
    with pytest.raises(DataError, match="not finite"):
        histogram([1.0, value])


def test_scales_of_a_plan() -> None:
    plan = make_plan(two_convs().graph)
    seen = {"x": histogram([-2.54]), "b": histogram([1.27]), "y": histogram([0.0])}
    scales = choose_scales(plan, seen, method="max")
    assert scales == pytest.approx({"one.input": 0.02, "two.input": 0.01, "two.output": 1 / 127})
    assert choose_scales(plan, seen, method="max", kind="fp8")["one.input"] == pytest.approx(2.54 / 448)
    with pytest.raises(ConfigError, match="method mse is not for fp8"):
        choose_scales(plan, seen, method="mse", kind="fp8")
    assert "entropy" not in FLOAT8_METHODS


def test_names_of_methods() -> None:
    assert parse_methods(["mse", "max"]) == ("max", "mse")
    with pytest.raises(ConfigError, match="no method of calibration is called best; there are max"):
        parse_methods(["best"])
