"""What a stage's scale becomes in a deployment's options; needs no running Ray."""

import pytest

from antiphon.hosting.ray_serve import Scale, placement


@pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")  # 2.60 reads nothing else
def test_stages_scale_by_what_they_record_and_the_gateway_by_what_serve_counts() -> None:
    scale = Scale(min_replicas=2, max_replicas=5, calls_per_replica=7)
    recorded = placement(scale)["autoscaling_config"]
    assert recorded.policy.policy_kwargs == {"calls_per_replica": 7}
    assert (recorded.min_replicas, recorded.max_replicas) == (2, 5)
    counted = placement(scale, records_calls=False)["autoscaling_config"]
    assert counted.target_ongoing_requests == 7
    assert not counted.policy.policy_kwargs
    assert placement(Scale(min_replicas=3, max_replicas=3))["num_replicas"] == 3
