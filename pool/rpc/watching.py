"""The messages of a watch: snapshots and news, for one caller."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import assert_never

import attrs

from pool.core.watch import Snapshot
from pool.ledger.news import LeaseNews, News, ProfileNews, VmNews
from pool.ledger.records import Owner
from pool.ledger.views import ProfileView
from pool.rpc.errors import shorten
from pool.rpc.leases import lease_change, lease_status
from vmpool.wire.generated.vmpool import v1 as wire


@attrs.frozen(kw_only=True)
class WatchMessages:
    """For one caller, who sees only the ids of their own leases."""

    owner: Owner
    profile_status: Callable[[ProfileView], wire.ProfileStatus]

    def reply(self, what: Snapshot | News, *, now: float) -> wire.WatchReply:
        match what:
            case Snapshot():
                return wire.WatchReply(snapshot=self._snapshot(what, now=now))
            case VmNews():
                return wire.WatchReply(vm=_vm_change(what))
            case LeaseNews():
                return wire.WatchReply(lease=lease_change(what, may_know=self.owner.may_touch(what.lease.owner)))
            case ProfileNews(profile=profile, change=change, detail=detail):
                return wire.WatchReply(
                    profile=wire.ProfileChange(
                        profile=profile, change=wire.ProfileChangeKind[change.name], detail=shorten(detail)
                    )
                )
            case _:
                assert_never(what)

    def _snapshot(self, snapshot: Snapshot, *, now: float) -> wire.Snapshot:
        leases: Iterable[wire.LeaseStatus] = (
            lease_status(lease, now=now) for lease in snapshot.leases if self.owner.may_touch(lease.owner)
        )
        return wire.Snapshot(
            profiles=[self.profile_status(view) for view in snapshot.profiles],
            vms=[
                wire.VmChange(
                    vm_id=vm.vm_id,
                    profile=vm.profile,
                    state=wire.VmState[vm.state.name],
                    age_ms=round((now - vm.ready_at) * 1e3) if vm.ready_at else 0,
                )
                for vm in snapshot.vms
            ],
            leases=list(leases),
        )


def _vm_change(news: VmNews) -> wire.VmChange:
    return wire.VmChange(
        vm_id=news.vm_id,
        profile=news.profile,
        state=wire.VmState[news.state.name],
        reason=wire.StopReason.UNSPECIFIED if news.reason is None else wire.StopReason[news.reason.name],
        detail=shorten(news.detail),
    )
