"""Ledgers with one fault each, to prove that the checks can fail. By the name of the check that must notice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pool.ledger.book import Ledger
from tests.properties.ledger.broken import answers, callers, host, pools
from tests.properties.ledger.broken.ledger import ledger_with

_FAULTS: Final[Mapping[str, tuple[type[Any], ...]]] = {
    # Of the state.
    "each_vm_is_in_exactly_one_place": (pools.KeepsReadyVmsInProduction,),
    "counts_match_the_vms": (callers.ForgetsToCountDown,),
    "counters_cover_the_vms": (pools.ForgetsToCountProductions,),
    "never_more_than_wanted": (pools.ProducesOneTooMany,),
    "no_more_vms_than_the_profile_may_have": (pools.ForgetsThatLeasedVmsAreVms, pools.CountsOwnConfigurationsApart),
    "memory_stays_within_the_budget": (host.SpendsMoreThanItHas, host.NeverGetsMemoryBack, host.ForgetsWhatGrew),
    "productions_stay_within_the_hosts_means": (host.BootsAllAtOnce, host.ForgetsProductions),
    "quotas_hold": (callers.CountsNoRequests, callers.CountsOnlyHisOwnRequests, callers.CountsNoLeases),
    "a_drained_profile_is_still": (pools.KeepsIdleVmsOfADrainedProfile,),
    "checks_stay_within_their_budget": (host.AsksAllAgentsAtOnce, host.AsksOnlyOnce),
    "vms_of_an_earlier_run_are_reached_few_at_a_time": (host.ReachesAllAtOnce, host.ReachesOnlyTheFirst),
    "passing_pages_are_closed": (pools.NeverCloses,),
    "no_more_shells_than_configured": (pools.StartsOneShellTooMany,),
    "stale_is_what_is_of_another_generation": (pools.KeepsStaleShells, pools.ForgetsWhatIsStale),
    "no_shell_idles_while_a_claim_waits": (pools.NeverFillsShells,),
    "no_vm_idles_while_a_claim_waits": (callers.LetsClaimsWait,),
    "each_waiting_boot_claim_has_a_production": (callers.NeverBootsForAClaim,),
    "claims_are_queued_or_on_a_vm": (callers.PutsRetriesAtTheEnd,),
    "each_claim_has_someone_who_waits": (callers.KeepsAbandonedClaims,),
    "leases_and_leased_vms_pair_up": (callers.KeepsReleasedVms,),
    "no_lease_outlives_its_time": (callers.NeverEndsALeaseByItself,),
    "each_lease_has_a_holder": (callers.KeepsUndeliveredLeases,),
    "a_key_leads_to_one_thing": (callers.ForgetsTheKeysOfLeases,),
    "a_name_leads_to_one_thing": (callers.ForgetsTheNamesOfLeases, callers.ForgetsTheNamesOfClaims),
    "what_befalls_a_lease_is_not_the_pools_failure": (host.BlamesThePool,),
    "wakeup_lies_ahead": (callers.IgnoresDeadlines, answers.WantsATickAllTheTime),
    "nobody_waits_past_the_deadline": (callers.IgnoresDeadlines,),
    "a_draining_ledger_only_stops": (callers.KeepsLeasesInADrain,),
    # Of each effect.
    "starts_are_new_vms_of_known_profiles": (answers.StartsTwice,),
    "fills_are_of_shells": (answers.FillsTwice,),
    "vms_are_reached_once": (host.ReachesTwice,),
    "hand_outs_are_of_ready_vms": (answers.HandsOutTwice,),
    "stops_are_ordered_once": (answers.StopsTwice,),
    "requests_are_answered_once": (answers.GrantsTwice, answers.RefusesTwice),
    "requests_are_not_answered_after_they_were_abandoned": (answers.IgnoresAbandonment,),
    "answers_fit_their_requests": (answers.GrantsToSomebodyElse,),
    "names_are_each_users_own": (callers.SharesNamesAmongUsers,),
    "failures_are_of_lost_vms": (answers.TakesARefusedWishForALostVm,),
    "refused_wishes_are_told_as_such": (answers.TakesALostVmForARefusedWish,),
    "grants_are_not_late": (callers.ServesTheEventBeforeTheDeadline,),
    "deadline_refusals_are_not_early": (callers.ExpiresEarly,),
    "grants_are_of_handed_out_vms": (answers.GrantsBeforeTheHandOutIsDone,),
    "no_vm_is_leased_twice": (answers.GrantsOneVmAgain,),
    "only_owners_and_root_touch_a_lease": (callers.LetsStrangersRenew, callers.LetsStrangersRelease),
    "leases_end_once": (answers.SaysTwiceThatALeaseEnded,),
    "fencing_tokens_grow": (callers.CountsFencingTokensDown,),
    "only_idle_vms_are_evicted": (callers.StopsLeasedVms,),
    "checks_are_of_ready_vms": (answers.ChecksWhoeverIsThere,),
    "detached_vms_can_be_adopted": (callers.HandsOverWhatNobodyCanAdopt,),
    "only_bare_leases_are_given_away": (callers.StopsWhatWasGivenAway,),
    "news_follow_the_vms": (answers.SkipsNews,),
    # Of all effects of an event.
    "first_come_first_served": (callers.LastComeFirstServed,),
    "users_take_turns": (callers.ServesUsersAsTheyCame,),
    "nobody_overtakes_in_another_profile": (callers.ServesOneProfileAfterTheOther,),
    "the_pool_produces_within_its_limits": (pools.ProducesWithoutLimit,),
    "rolling_leaves_the_minimum": (pools.RollsAllAtOnce,),
    "nothing_is_produced_without_need": (
        host.ProducesThoughMemoryIsLow,
        pools.NeverOpensTheCircuit,
        pools.TriesSeveralAtOnce,
    ),
    # Of what becomes of it in the end.
    "the_pool_fills_up_in_quiet_times": (answers.ForgetsToRetry,),
    "ticks_come_to_an_end": (answers.WantsATickAllTheTime,),
    "the_world_comes_to_rest": (answers.WantsATickAllTheTime,),
    "a_drained_ledger_is_empty": (callers.KeepsReadyVmsInADrain,),
    "every_request_gets_its_answer": (callers.ExpiresWithoutAWord,),
}

BROKEN: Final[Mapping[str, tuple[type[Ledger], ...]]] = {
    check: tuple(ledger_with(fault) for fault in faults) for check, faults in _FAULTS.items()
}


def faults() -> dict[str, tuple[str, type[Ledger]]]:
    """A check and what it must notice, by both their names."""
    return {f"{check}-{ledger.__name__}": (check, ledger) for check, ledgers in BROKEN.items() for ledger in ledgers}
