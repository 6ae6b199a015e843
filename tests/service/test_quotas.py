from collections.abc import Iterator
from functools import partial

import pytest

from service.errors import QuotaExceeded
from service.quotas import Quota, TokenBucket


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr("service.quotas.now_seconds", clock)
    return clock


def test_a_bucket_lets_a_burst_through_and_then_a_steady_stream(clock: Clock) -> None:
    bucket = TokenBucket(60, burst=3)
    for _ in range(3):
        assert bucket.wait_seconds(1) == 0.0
        bucket.take(1)
    assert bucket.wait_seconds(1) == pytest.approx(1.0)
    for _ in range(100):
        clock.seconds += bucket.wait_seconds(1)
        assert bucket.wait_seconds(1) == 0.0
        bucket.take(1)
    assert clock.seconds == pytest.approx(1100.0)


def test_no_more_than_the_burst_is_saved_up(clock: Clock) -> None:
    bucket = TokenBucket(60, burst=3)
    clock.seconds += 1e6
    bucket.take(3)
    assert bucket.wait_seconds(1) == pytest.approx(1.0)


def test_a_minute_s_worth_is_the_burst_when_none_is_named(clock: Clock) -> None:
    bucket = TokenBucket(30)
    bucket.take(30)
    assert bucket.wait_seconds(1) == pytest.approx(2.0)


def test_what_is_larger_than_the_burst_passes_a_full_bucket_and_is_paid_off_later(clock: Clock) -> None:
    bucket = TokenBucket(60, burst=10)
    assert bucket.wait_seconds(100) == 0.0
    bucket.take(100)
    assert bucket.wait_seconds(1) == pytest.approx(91.0)
    assert bucket.wait_seconds(100) == pytest.approx(100.0)


@pytest.mark.parametrize("per_minute", [1, 7, 59, 600, 12_345.678])
def test_who_waits_as_long_as_was_said_is_let_in(clock: Clock, per_minute: float) -> None:
    quota = Quota(TokenBucket(per_minute, 1), TokenBucket(per_minute, 1))
    for charge in (quota.charge_request, partial(quota.charge_photo, 1_234_567)):
        charge()
        for _ in range(50):
            with pytest.raises(QuotaExceeded) as refusal:
                charge()
            clock.seconds += refusal.value.retry_after_seconds
            charge()


def test_a_photo_over_the_quota_is_told_when_it_and_its_request_will_pass(clock: Clock) -> None:
    quota = Quota(requests=TokenBucket(1), megapixels=TokenBucket(60))
    quota.charge_request()
    quota.charge_photo(60_000_000)
    with pytest.raises(QuotaExceeded, match=r"5\.0 megapixels.*try again in 60 seconds") as refusal:
        quota.charge_photo(5_000_000)  # its megapixels would be there in 5 seconds, its next request in 60
    assert refusal.value.retry_after_seconds == 60


def test_what_is_refused_is_not_charged(clock: Clock) -> None:
    quota = Quota(requests=TokenBucket(60, 1), megapixels=TokenBucket(60, 1))
    quota.charge_request()
    quota.charge_photo(1_000_000)
    for _ in range(10):
        with pytest.raises(QuotaExceeded):
            quota.charge_request()
        with pytest.raises(QuotaExceeded):
            quota.charge_photo(1_000_000)
    clock.seconds += 1
    quota.charge_request()
    quota.charge_photo(1_000_000)


def test_without_a_quota_nothing_is_counted() -> None:
    quota = Quota()
    for _ in range(1000):
        quota.charge_request()
        quota.charge_photo(10**9)
