"""What a stage's scale becomes in a deployment's options; needs no running Ray."""

import json

import pytest

from antiphon.hosting.autoscaling import StagePolicy
from antiphon.hosting.ray_serve import Scale, placement
from antiphon.scaling.pacing import Pacing
from antiphon.scaling.policies import CallsPolicy, SpeechPolicy

SCALE = Scale(min_replicas=2, max_replicas=5)


@pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")  # 2.60 reads nothing else
def test_stages_scale_by_what_they_record_and_the_gateway_by_what_serve_counts() -> None:
    recorded = placement(SCALE, SpeechPolicy())["autoscaling_config"]
    assert (recorded.min_replicas, recorded.max_replicas) == (2, 5)
    assert recorded.policy.policy_kwargs["plan"]["policy"]["kind"] == "speech"
    assert not recorded.policy.policy_kwargs["counts_requests"]
    assert placement(SCALE, records_calls=False)["autoscaling_config"].policy.policy_kwargs["counts_requests"]
    assert placement(Scale(min_replicas=3, max_replicas=3))["num_replicas"] == 3


@pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")
def test_a_scale_may_name_another_policy_and_pace_which_arrive_whole() -> None:
    policy, pacing = CallsPolicy(calls_per_replica=7), Pacing(hold_seconds=5)
    scale = SCALE.model_copy(update={"policy": policy, "pacing": pacing})
    kwargs = json.loads(json.dumps(placement(scale, SpeechPolicy())["autoscaling_config"].policy.policy_kwargs))
    plan = StagePolicy(**kwargs).plan
    assert (plan.policy, plan.pacing, plan.bounds.max_replicas) == (policy, pacing, 5)
    assert Scale.model_validate({"policy": {"kind": "calls", "calls_per_replica": 7}}).policy == policy


def test_replicas_get_the_variables_of_their_application() -> None:
    told = placement(Scale(), environment={"ANTIPHON_THINKER_EXPERTS": "remote"})["ray_actor_options"]["runtime_env"]
    assert told["env_vars"] == {"OMP_NUM_THREADS": "1", "ANTIPHON_THINKER_EXPERTS": "remote"}
