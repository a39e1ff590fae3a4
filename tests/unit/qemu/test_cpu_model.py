"""Which words are a CPU model of QEMU's, and which of them are no more than features of it."""

from __future__ import annotations

import pytest

from vmm.words.cpu_model import PLAIN_FEATURES, beyond_features, fault_in


@pytest.mark.parametrize(
    "model",
    [
        "max",
        "host",
        "qemu64",
        "Skylake-Server-v4",
        "core2duo",
        "n270",
        "486",
        "max,erms=on,fsrm=off",
        "max,+avx2,-rdrand",
        "max,pmu=off,host-phys-bits-limit=40,hv_vendor_id=KVM",
        "EPYC,sse4.1=on,x2apic",
    ],
)
def test_a_model_and_its_features(model: str) -> None:
    assert fault_in(model) == ""


@pytest.mark.parametrize(
    "model", ["help", "?", "HELP", "list", "", ",avx2=on", "-max", "+max", "max host", "m\nax", "=on"]
)
def test_no_model(model: str) -> None:
    assert fault_in(model).startswith("is not a CPU model; name one of QEMU's")


@pytest.mark.parametrize(
    "feature", ["help", "help=on", "+help", "?", "", "+", "=on", "avx2=on off", "avx2==on", "avx2=on\n", "+avx2=on"]
)
def test_no_feature(feature: str) -> None:
    assert fault_in(f"max,sse2=on,{feature}").startswith(f"has {feature!r}, which is not a feature")


def test_too_long() -> None:
    assert fault_in("m" * 1024) == ""
    assert fault_in("m" * 1025) == "has 1025 characters; the maximum is 1024"


def test_what_is_more_than_a_feature_is_told() -> None:
    assert beyond_features("max,avx2=on,vmx=on,+sse2,-svm,phys-bits=52,sse4_2=off,kvm") == (
        "vmx=on",
        "-svm",
        "phys-bits=52",
        "kvm",
    )


BEYOND = "vmx svm vmx-ept npt nrip-save avic kvm kvmclock kvm-pv-eoi hv-time hypervisor pmu migratable check enforce"
BEYOND_TOO = "sgx intel-pt host-phys-bits l3-cache realized memory x-force-features"


@pytest.mark.parametrize("name", f"{BEYOND} {BEYOND_TOO}".split())
def test_what_is_none(name: str) -> None:
    """Of nested virtualization, enclaves and tracing, of KVM, of the device."""
    assert name not in PLAIN_FEATURES
    assert beyond_features(f"max,{name}=on") == (f"{name}=on",)
