"""CPU models as QEMU's `-cpu` takes them: their syntax, and which of their properties are plain CPU features."""

from __future__ import annotations

import re
from typing import Final

MAX_CPU_MODEL: Final = 1024
"""Characters."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_FEATURE: Final = re.compile(rf"[+-](?P<flag>{_NAME.pattern})|(?P<key>{_NAME.pattern})(=[A-Za-z0-9_.+-]*)?")
_PLAIN: Final = re.compile(r"[+-](?P<flag>[^=]+)|(?P<key>[^=]+)=(on|off)")

_NO_NAMES: Final = frozenset({"help", "list"})
"""With "help" QEMU prints a list and ends; "?" is not in the syntax of a name."""


_PLAIN_FEATURES: Final = """
3dnow 3dnowext 3dnowprefetch abm adx aes amd-no-ssb amd-psfd amd-ssbd amd-stibp amx-bf16 amx-complex amx-fp16 amx-int8
amx-tile apic arat arch-capabilities auto-ibrs avx avx-ifma avx-ne-convert avx-vnni avx-vnni-int16 avx-vnni-int8 avx10
avx2 avx512-4fmaps avx512-4vnniw avx512-bf16 avx512-fp16 avx512-vp2intersect avx512-vpopcntdq avx512bitalg avx512bw
avx512cd avx512dq avx512er avx512f avx512ifma avx512pf avx512vbmi avx512vbmi2 avx512vl avx512vnni bhi-ctrl bhi-no bmi1
bmi2 bus-lock-detect cldemote clflush clflushopt clwb clzero cmov cmp-legacy cmpccxadd core-capability cr8legacy cx16
cx8 de erms f16c fb-clear fbsdp-no flush-l1d fma fma4 fpu fred fsgsbase fsrc fsrm fsrs fxsr fxsr-opt fzrm gds-no gfni
hle hreset ht ibpb ibpb-brtype ibrs ibrs-all invpcid invtsc ipred-ctrl its-no la57 lahf-lm lam lm lwp mca mcdt-no mce
md-clear mds-no misalignsse mmx mmxext movbe movdir64b movdiri msr mtrr no-nested-data-bp null-sel-clr-base nx osvw pae
pat pbrsb-no pcid pclmulqdq pdpe1gb pge pks pku pni popcnt prefetchiti pschange-mc-no psdp-no pse pse36 rdctl-no rdpid
rdrand rdseed rdtscp rfds-clear rfds-no rrsba-ctrl rsba rtm sbdr-ssdp-no sbpb sep serialize sha-ni sha512
skip-l1dfl-vmentry sm3 sm4 smap smep spec-ctrl split-lock-detect srso-no srso-user-kernel-no ss ssb-no ssbd sse sse2
sse4-1 sse4-2 sse4.1 sse4.2 sse4a ssse3 stibp stibp-always-on syscall taa-no tbm topoext tsc tsc-adjust tsc-deadline
tsx-ctrl tsx-ldtrk umip vaes virt-ssbd vme vpclmulqdq waitpkg wbnoinvd wrmsrns x2apic xfd xgetbv1 xop xsave xsavec
xsaveerptr xsaveopt xsaves
"""
PLAIN_FEATURES: Final = frozenset(_PLAIN_FEATURES.split())
"""Flags of CPUID, by QEMU's names; not those of nested virtualization, enclaves, tracing, counters, power and KVM."""


def fault_in(model: str) -> str:
    """Why the text is not a model with features after commas; empty if it is one. QEMU checks that the model exists."""
    name, *features = model.split(",")
    if len(model) > MAX_CPU_MODEL:
        return f"has {len(model)} characters; the maximum is {MAX_CPU_MODEL}"
    if not _NAME.fullmatch(name) or name.lower() in _NO_NAMES:
        return "is not a CPU model; name one of QEMU's (letters, digits, '-', '_', '.'), then features after commas"
    for feature in features:
        found = _FEATURE.fullmatch(feature)
        if found is None or (found["flag"] or found["key"]).lower() in _NO_NAMES:
            return f"has {feature!r}, which is not a feature; write name=on, name=off, +name or -name"
    return ""


def beyond_features(model: str) -> tuple[str, ...]:
    """The properties after the model's name that do more than switch a feature of the CPU on or off.

    A CPU is a QEMU device with more properties than features: the KVM and Hyper-V interfaces, the host's counters,
    nested virtualization, whether the device exists at all. A feature that is not listed here is taken for one of
    those.
    """
    return tuple(feature for feature in model.split(",")[1:] if not _is_plain(feature))


def _is_plain(feature: str) -> bool:
    found = _PLAIN.fullmatch(feature)
    return found is not None and (found["flag"] or found["key"]).replace("_", "-") in PLAIN_FEATURES
