"""A page names the processor by more than the name that a hypervisor gives it."""

from __future__ import annotations

from tests.bench.machine import before, machine_section, processor

CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 26
model\t\t: 2
model name\t: AMD EPYC
stepping\t: 1
microcode\t: 0x1000065
cpu MHz\t\t: 2596.122

processor\t: 1
cpu MHz\t\t: 1200.000
"""


def test_the_first_core_as_the_kernel_describes_it() -> None:
    assert processor(CPUINFO) == (
        "AMD EPYC (vendor AuthenticAMD, cpu family 26, model 2, stepping 1, microcode 0x1000065, cpu MHz 2596.122)"
    )


def test_a_section_names_this_machine() -> None:
    text = "\n".join(machine_section(["msgspec"], before()))
    assert "cores of " in text
    assert "msgspec " in text
    assert "Load average before the run: " in text


def test_a_section_without_libraries_has_no_place_for_them() -> None:
    assert "; ;" not in "\n".join(machine_section((), before()))
