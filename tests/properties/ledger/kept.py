"""Histories in which the checks notice the faults that they are there for, by check and fault.

Found and shortened by `python -m tests.properties.ledger`, which also looks for those that do not fit any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pool.ledger.policy import OnEmpty, PoolPolicy, ServicePolicy
from tests.properties.ledger.histories import History, step
from vmm.words.life import VmState

KEPT: Final[Mapping[str, History]] = {
    "each_vm_is_in_exactly_one_place-KeepsReadyVmsInProduction": [step("open_the_pool", chosen=[PoolPolicy(size=1)])],
    "counts_match_the_vms-ForgetsToCountDown": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)], full=True),
        step("somebody_asks", then="handed out late"),
        step("somebody_uses_a_lease"),
    ],
    "counters_cover_the_vms-ForgetsToCountProductions": [step("open_the_pool", chosen=[PoolPolicy(size=1)])],
    "never_more_than_wanted-ProducesOneTooMany": [step("open_the_pool", chosen=[PoolPolicy(size=0)])],
    "no_more_vms_than_the_profile_may_have-ForgetsThatLeasedVmsAreVms": [
        step("open_the_pool", chosen=[PoolPolicy(size=1), PoolPolicy(size=2), PoolPolicy(size=1, max_vms=1)]),
        step("somebody_asks", profile=2),
    ],
    "no_more_vms_than_the_profile_may_have-CountsOwnConfigurationsApart": [
        step("open_the_pool", chosen=[PoolPolicy(size=2)], service=ServicePolicy(adoptions_at_once=1)),
        step("somebody_asks", profile=None),
    ],
    "memory_stays_within_the_budget-SpendsMoreThanItHas": [
        step(
            "open_the_pool",
            chosen=[PoolPolicy(size=4, memory_mib=512)],
            service=ServicePolicy(memory_budget_mib=1024, adoptions_at_once=2),
        )
    ],
    "memory_stays_within_the_budget-NeverGetsMemoryBack": [
        step("open_the_pool", chosen=[PoolPolicy(size=1, memory_mib=256)])
    ],
    "memory_stays_within_the_budget-ForgetsWhatGrew": [
        step("open_the_pool", chosen=[PoolPolicy(size=3)]),
        step("somebody_asks", memory_mib=1024),
    ],
    "productions_stay_within_the_hosts_means-BootsAllAtOnce": [
        step("open_the_pool", chosen=[PoolPolicy(size=2)], service=ServicePolicy(boots_at_once=1, adoptions_at_once=2))
    ],
    "productions_stay_within_the_hosts_means-ForgetsProductions": [step("open_the_pool", chosen=[PoolPolicy(size=1)])],
    "quotas_hold-CountsNoRequests": [
        step(
            "open_the_pool", chosen=[PoolPolicy(size=1)], service=ServicePolicy(requests_per_uid=1, adoptions_at_once=2)
        ),
        step("somebody_asks", times=4),
    ],
    "quotas_hold-CountsOnlyHisOwnRequests": [
        step("open_the_pool", chosen=[PoolPolicy(size=3)], service=ServicePolicy(requests=2, adoptions_at_once=2)),
        step("somebody_asks", times=4),
    ],
    "quotas_hold-CountsNoLeases": [
        step(
            "open_the_pool", chosen=[PoolPolicy(size=2)], service=ServicePolicy(leases_per_uid=1, adoptions_at_once=1)
        ),
        step("somebody_asks", times=4),
    ],
    "a_drained_profile_is_still-KeepsIdleVmsOfADrainedProfile": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)]),
        step("somebody_administers", what="drain"),
    ],
    "checks_stay_within_their_budget-AsksAllAgentsAtOnce": [
        step(
            "open_the_pool",
            chosen=[PoolPolicy(size=4, check_interval_s=11.0)],
            service=ServicePolicy(adoptions_at_once=2),
            left_leased=1,
            full=True,
        ),
        step("time_passes", seconds=5.0),
    ],
    "checks_stay_within_their_budget-AsksOnlyOnce": [
        step("open_the_pool", chosen=[PoolPolicy(size=1, check_interval_s=2.0)], full=True),
        step("time_passes"),
    ],
    "vms_of_an_earlier_run_are_reached_few_at_a_time-ReachesAllAtOnce": [
        step("open_the_pool", chosen=[PoolPolicy(size=3)], service=ServicePolicy(adoptions_at_once=1), left_idle=3)
    ],
    "vms_of_an_earlier_run_are_reached_few_at_a_time-ReachesOnlyTheFirst": [
        step(
            "open_the_pool",
            chosen=[PoolPolicy(size=3)],
            service=ServicePolicy(adoptions_at_once=1),
            left_idle=1,
            left_leased=1,
        )
    ],
    "passing_pages_are_closed-NeverCloses": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)]),
        step("somebody_asks", profile=None, patience_s=0.0),
    ],
    "no_more_shells_than_configured-StartsOneShellTooMany": [
        step("open_the_pool", chosen=[PoolPolicy(size=2, shells=2)])
    ],
    "stale_is_what_is_of_another_generation-KeepsStaleShells": [
        step("open_the_pool", chosen=[PoolPolicy(size=2, shells=2)]),
        step("the_world_changes", what="new"),
    ],
    "stale_is_what_is_of_another_generation-ForgetsWhatIsStale": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)], full=True),
        step("the_world_changes", what="new"),
    ],
    "no_shell_idles_while_a_claim_waits-NeverFillsShells": [
        step("open_the_pool", chosen=[PoolPolicy(size=2), PoolPolicy(size=1), PoolPolicy(size=0, shells=1)]),
        step("somebody_asks", profile=2, on_empty=OnEmpty.BOOT),
    ],
    "no_vm_idles_while_a_claim_waits-LetsClaimsWait": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)]),
        step("somebody_asks"),
    ],
    "each_waiting_boot_claim_has_a_production-NeverBootsForAClaim": [
        step("open_the_pool", chosen=[PoolPolicy(size=4)]),
        step("somebody_asks", on_empty=OnEmpty.BOOT),
    ],
    "claims_are_queued_or_on_a_vm-PutsRetriesAtTheEnd": [
        step(
            "open_the_pool",
            chosen=[PoolPolicy(size=2, memory_mib=512)],
            service=ServicePolicy(memory_budget_mib=512, adoptions_at_once=2),
        ),
        step("somebody_administers"),
        step("vms_do_what_they_should"),
        step("somebody_asks", on_empty=OnEmpty.BOOT, times=4),
        step("vms_do_what_they_should"),
        step("somebody_asks", then="not handed out"),
    ],
    "each_claim_has_someone_who_waits-KeepsAbandonedClaims": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)]),
        step("somebody_asks"),
        step("somebody_stops_waiting"),
    ],
    "leases_and_leased_vms_pair_up-KeepsReleasedVms": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)], full=True),
        step("somebody_asks", then="handed out late"),
        step("somebody_uses_a_lease"),
    ],
    "no_lease_outlives_its_time-NeverEndsALeaseByItself": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)]),
        step("somebody_asks", ttl_s=0.25),
        step("all_is_quiet_for_a_while"),
        step("somebody_asks", then="handed out late"),
    ],
    "each_lease_has_a_holder-KeepsUndeliveredLeases": [
        step("open_the_pool", chosen=[PoolPolicy(size=2)], full=True),
        step("somebody_asks", then="handed out"),
        step("somebody_uses_a_lease", what="undelivered"),
    ],
    "a_key_leads_to_one_thing-ForgetsTheKeysOfLeases": [
        step("open_the_pool", chosen=[PoolPolicy(size=3)], left_leased=1),
        step("somebody_asks", uid=1000, key="k1"),
    ],
    "a_name_leads_to_one_thing-ForgetsTheNamesOfLeases": [
        step("open_the_pool", chosen=[PoolPolicy(size=3)], left_leased=1),
        step("somebody_asks", uid=1000, lease_name="n1"),
    ],
    "a_name_leads_to_one_thing-ForgetsTheNamesOfClaims": [
        step("open_the_pool", chosen=[PoolPolicy(size=3)]),
        step("somebody_asks", uid=1000, lease_name="n1"),
        step("somebody_asks", uid=1000, lease_name="n1"),
    ],
    "what_befalls_a_lease_is_not_the_pools_failure-BlamesThePool": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)], left_leased=1),
        step("vms_break", state=VmState.LEASED),
    ],
    "wakeup_lies_ahead-IgnoresDeadlines": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)]),
        step("somebody_asks", ttl_s=0.25),
    ],
    "wakeup_lies_ahead-WantsATickAllTheTime": [step("open_the_pool", chosen=[PoolPolicy(size=0)])],
    "nobody_waits_past_the_deadline-IgnoresDeadlines": [
        step("open_the_pool", chosen=[PoolPolicy(size=3)]),
        step("somebody_asks", patience_s=0.25),
        step("time_passes"),
    ],
    "a_draining_ledger_only_stops-KeepsLeasesInADrain": [step("open_the_pool", chosen=[PoolPolicy(size=1)])],
    "starts_are_new_vms_of_known_profiles-StartsTwice": [step("open_the_pool", chosen=[PoolPolicy(size=1)])],
    "fills_are_of_shells-FillsTwice": [
        step("open_the_pool", chosen=[PoolPolicy(size=2), PoolPolicy(size=1), PoolPolicy(size=0, shells=1)]),
        step("somebody_asks", profile=2, on_empty=OnEmpty.BOOT),
    ],
    "vms_are_reached_once-ReachesTwice": [
        step("open_the_pool", chosen=[PoolPolicy(size=3)], service=ServicePolicy(adoptions_at_once=1), left_idle=1)
    ],
    "hand_outs_are_of_ready_vms-HandsOutTwice": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)]),
        step("somebody_asks"),
    ],
    "stops_are_ordered_once-StopsTwice": [step("open_the_pool", chosen=[PoolPolicy(size=1)])],
    "requests_are_answered_once-GrantsTwice": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)]),
        step("somebody_asks"),
    ],
    "requests_are_answered_once-RefusesTwice": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)]),
        step("somebody_asks", patience_s=0.0),
    ],
    "requests_are_not_answered_after_they_were_abandoned-IgnoresAbandonment": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)]),
        step("somebody_asks"),
        step("somebody_stops_waiting"),
    ],
    "answers_fit_their_requests-GrantsToSomebodyElse": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)]),
        step("somebody_asks"),
    ],
    "names_are_each_users_own-SharesNamesAmongUsers": [
        step("open_the_pool", chosen=[PoolPolicy(size=3)], left_leased=1),
        step("somebody_asks", uid=1001, lease_name="n1"),
    ],
    "failures_are_of_lost_vms-TakesARefusedWishForALostVm": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)], full=True),
        step("somebody_asks", on_empty=OnEmpty.FAIL, then="refused"),
    ],
    "refused_wishes_are_told_as_such-TakesALostVmForARefusedWish": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)], full=True),
        step("somebody_asks", then="not handed out"),
    ],
    "grants_are_not_late-ServesTheEventBeforeTheDeadline": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)], full=True),
        step("somebody_asks", patience_s=0.25, then="handed out late"),
    ],
    "deadline_refusals_are_not_early-ExpiresEarly": [
        step("open_the_pool", chosen=[PoolPolicy(size=3)]),
        step("somebody_asks", patience_s=0.25),
    ],
    "grants_are_of_handed_out_vms-GrantsBeforeTheHandOutIsDone": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)]),
        step("somebody_asks"),
    ],
    "no_vm_is_leased_twice-GrantsOneVmAgain": [
        step("open_the_pool", chosen=[PoolPolicy(size=3)], left_leased=2),
        step("somebody_asks"),
    ],
    "only_owners_and_root_touch_a_lease-LetsStrangersRenew": [
        step("open_the_pool", chosen=[PoolPolicy(size=4)], left_leased=2),
        step("somebody_uses_a_lease", what="renew", uid=1001),
    ],
    "only_owners_and_root_touch_a_lease-LetsStrangersRelease": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)]),
        step("somebody_asks"),
        step("all_is_quiet_for_a_while"),
        step("somebody_uses_a_lease", uid=1001),
    ],
    "leases_end_once-SaysTwiceThatALeaseEnded": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)]),
        step("somebody_asks"),
    ],
    "fencing_tokens_grow-CountsFencingTokensDown": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)]),
        step("somebody_asks"),
        step("somebody_asks"),
    ],
    "only_idle_vms_are_evicted-StopsLeasedVms": [
        step("open_the_pool", chosen=[PoolPolicy(size=3)], left_leased=2),
        step("somebody_asks"),
    ],
    "checks_are_of_ready_vms-ChecksWhoeverIsThere": [
        step("open_the_pool", chosen=[PoolPolicy(size=1, shells=2, check_interval_s=2.0)], full=True),
        step("time_passes"),
    ],
    "detached_vms_can_be_adopted-HandsOverWhatNobodyCanAdopt": [
        step("open_the_pool", chosen=[PoolPolicy(size=2)]),
        step("somebody_asks"),
        step("somebody_asks"),
        step("somebody_asks"),
        step("somebody_asks", times=2),
        step("somebody_asks", times=4),
        step("somebody_asks", times=2),
        step("somebody_asks", times=2),
        step("the_service_is_told_to_stop", hands_over=True),
    ],
    "only_bare_leases_are_given_away-StopsWhatWasGivenAway": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)], full=True),
        step("somebody_asks", bare=True),
        step("somebody_asks", then="handed out late"),
        step("somebody_has_a_bare_vm_in_hand"),
    ],
    "news_follow_the_vms-SkipsNews": [step("open_the_pool", chosen=[PoolPolicy(size=1)]), step("somebody_asks")],
    "first_come_first_served-LastComeFirstServed": [
        step("open_the_pool", chosen=[PoolPolicy(size=3)]),
        step("somebody_asks"),
        step("somebody_asks"),
    ],
    "users_take_turns-ServesUsersAsTheyCame": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)], service=ServicePolicy(adoptions_at_once=1)),
        step("somebody_asks", uid=1001, times=4),
        step("somebody_asks"),
    ],
    "nobody_overtakes_in_another_profile-ServesOneProfileAfterTheOther": [
        step(
            "open_the_pool",
            chosen=[PoolPolicy(size=0, memory_mib=512)],
            service=ServicePolicy(memory_budget_mib=512, adoptions_at_once=1),
            left_leased=1,
        ),
        step("somebody_asks", profile=None),
        step("somebody_asks", on_empty=OnEmpty.BOOT),
    ],
    "the_pool_produces_within_its_limits-ProducesWithoutLimit": [
        step("open_the_pool", chosen=[PoolPolicy(size=2)], full=True),
        step("somebody_asks", then="not handed out"),
    ],
    "rolling_leaves_the_minimum-RollsAllAtOnce": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)]),
        step("the_world_changes", what="new"),
    ],
    "nothing_is_produced_without_need-ProducesThoughMemoryIsLow": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)]),
        step("the_world_changes"),
    ],
    "nothing_is_produced_without_need-NeverOpensTheCircuit": [
        step("open_the_pool", chosen=[PoolPolicy(size=3, max_vms=5)]),
        step("somebody_asks", on_empty=OnEmpty.BOOT),
        step("somebody_asks", then="not produced"),
        step("somebody_asks", on_empty=OnEmpty.BOOT, times=2),
        step("somebody_asks", on_empty=OnEmpty.BOOT),
        step("somebody_asks", on_empty=OnEmpty.BOOT),
        step("somebody_asks", on_empty=OnEmpty.BOOT),
        step("somebody_asks", on_empty=OnEmpty.BOOT, times=2),
        step("somebody_asks", then="not produced"),
    ],
    "nothing_is_produced_without_need-TriesSeveralAtOnce": [
        step(
            "open_the_pool",
            chosen=[PoolPolicy(size=3), PoolPolicy(size=3, production_limit=3, breaker_threshold=4)],
            left_idle=3,
        ),
        step("somebody_asks", then="not produced"),
        step("somebody_asks", then="handed out late"),
        step("somebody_asks", then="handed out late"),
        step("somebody_asks", then="not produced"),
    ],
    "the_pool_fills_up_in_quiet_times-ForgetsToRetry": [
        step("open_the_pool", chosen=[PoolPolicy(size=3)]),
        step("all_is_quiet_for_a_while"),
        step("vms_break", state=VmState.READY),
    ],
    "ticks_come_to_an_end-WantsATickAllTheTime": [
        step("open_the_pool", chosen=[PoolPolicy(size=3)]),
        step("time_passes"),
    ],
    "the_world_comes_to_rest-WantsATickAllTheTime": [step("open_the_pool", chosen=[PoolPolicy(size=0)])],
    "a_drained_ledger_is_empty-KeepsReadyVmsInADrain": [step("open_the_pool", chosen=[PoolPolicy(size=1)])],
    "every_request_gets_its_answer-ExpiresWithoutAWord": [
        step("open_the_pool", chosen=[PoolPolicy(size=1)], service=ServicePolicy(adoptions_at_once=2)),
        step("the_world_changes"),
        step("somebody_asks", patience_s=5.0),
        step("all_is_quiet_for_a_while"),
    ],
}
