"""NVIDIA cards, as `nvidia-smi` tells of them: driver, the CUDA version it offers, compute capability, memory.

Two questions, because no single one is understood by every driver: the XML report has neither the compute capability
nor, on some, the memory; the table has no CUDA version, and drivers before 510 refuse it for the capability.
No driver library is loaded here.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

from msgspec import Struct, field
from msgspec.structs import replace

from jan_core.types import Device

from .found import Found
from .pci import NVIDIA, Card
from .tools import Answer, Answers, Command, Tools

__all__ = ["NO_CARD", "Smi", "commands", "cuda_of_driver", "find", "parse_table", "parse_xml", "reason_of"]

NO_CARD = "no NVIDIA GPU was found"

_XML: Command = ("nvidia-smi", "-q", "-x")
_FIELDS = "uuid,name,driver_version,memory.total,memory.free,compute_cap"
_TABLE: Command = ("nvidia-smi", f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits")
_MIB = 2**20

# The CUDA version a driver branch came with (CUDA toolkit release notes, table "CUDA Toolkit and Corresponding Driver
# Versions"), for when nvidia-smi does not say it.
_BRANCHES = [
    (450, "11.0"), (455, "11.1"), (460, "11.2"), (465, "11.3"), (470, "11.4"), (495, "11.5"), (510, "11.6"),
    (515, "11.7"), (520, "11.8"), (525, "12.0"), (530, "12.1"), (535, "12.2"), (545, "12.3"), (550, "12.4"),
    (555, "12.5"), (560, "12.6"), (565, "12.7"), (570, "12.8"), (575, "12.9"), (580, "13.0"), (590, "13.1"),
]  # fmt: skip

# The lowest capability of the chips from this PCI device id on (the chips' ids in the PCI ID database). Only for
# drivers that do not tell the capability, so nothing newer than Ampere is here.
_CHIPS = [
    (0x0000, "1.0"), (0x06C0, "2.0"), (0x0FC0, "3.0"), (0x1001, "3.5"), (0x1040, "2.0"), (0x1180, "3.0"),
    (0x1200, "2.0"), (0x1280, "3.5"), (0x1340, "5.0"), (0x13C0, "5.2"), (0x15F0, "6.0"), (0x1600, "5.2"),
    (0x1B00, "6.1"), (0x1D80, "7.0"), (0x1E00, "7.5"), (0x2000, "8.0"), (0x2180, "7.5"), (0x2200, "8.6"),
]  # fmt: skip
_NEWEST_CHIP = 0x2600

# What nvidia-smi and NVML print, and what it means for a person.
_COMPLAINTS = [
    ("driver/library version mismatch", "the NVIDIA driver was updated while it ran: restart the computer"),
    ("couldn't communicate with the nvidia driver", "the NVIDIA kernel module is not running: install the driver anew "
     "for the running kernel (after a kernel update), or sign it for Secure Boot; then restart the computer"),
    ("couldn't find libnvidia-ml", "a part of the NVIDIA driver (libnvidia-ml) is missing: install the driver anew"),
    ("gpu access blocked by the operating system", "Windows does not let this Linux (WSL) use the GPU: update the "
     "NVIDIA driver in Windows and run `wsl --update`"),
    ("insufficient permissions", "this user may not use the GPU: /dev/nvidia* must be readable and writable"),
    ("is lost", "the GPU dropped off the bus: restart the computer; if it comes back, look at its power and slot"),
    ("failed to initialize nvml: unknown error", "the driver refuses this process; in a container: start it anew"),
    ("driver not loaded", "the NVIDIA kernel module is not loaded: restart the computer, or install the driver anew"),
    ("unable to determine the device handle", "the GPU does not answer its driver: restart the computer"),
    ("no devices were found", "the NVIDIA driver runs but finds no GPU that it supports: a driver of another "
     "generation may be needed"),
]  # fmt: skip


class Smi(Struct):
    """One report of nvidia-smi. `ids`: PCI device ids by UUID."""

    cuda: str = ""
    devices: list[Device] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)
    mig_without_instances: list[str] = field(default_factory=list)


def commands(tools: Tools) -> list[Command]:
    """What `find` needs answers to."""
    return [] if tools.platform == "darwin" else [_XML, _TABLE]


def find(tools: Tools, answers: Answers, cards: list[Card]) -> Found:
    """The CUDA devices of this machine, MIG instances one by one."""
    if tools.platform == "darwin":
        return Found([], "there is no CUDA on macOS")
    if tools.env("CUDA_VISIBLE_DEVICES") == "-1":
        return Found([], "CUDA_VISIBLE_DEVICES=-1 hides every NVIDIA GPU")
    report = parse_xml(answers[_XML].output) if answers[_XML].ok else Smi()
    table = parse_table(answers[_TABLE].output) if answers[_TABLE].ok else {}
    devices = [_completed(device, report, table) for device in report.devices]
    if not devices and not report.mig_without_instances:  # the XML report failed or was cut short; the table may do
        devices = [replace(device, runtime=cuda_of_driver(device.driver)) for device in table.values()]
    if devices:
        return Found(devices)
    if report.mig_without_instances:
        name = report.mig_without_instances[0]
        return Found([], f"MIG is enabled on the {name} without an instance: create one, or disable MIG")
    return Found([], _reason(tools, answers[_XML], [card for card in cards if card.vendor == NVIDIA]))


def parse_xml(text: str) -> Smi:
    """`nvidia-smi -q -x`; empty when it is no such report."""
    # Declarations go: an entity has no business here.
    text = re.sub(r"<!(?:DOCTYPE|ENTITY)[^>]*>", "", text)
    try:
        root = ET.fromstring(text)
    except (ET.ParseError, ValueError):
        return Smi()
    if root.tag != "nvidia_smi_log":
        return Smi()
    driver, smi = _said(root, "driver_version"), Smi(cuda=_version(_said(root, "cuda_version")))
    for gpu in root.iter("gpu"):
        name, uuid = _said(gpu, "product_name"), _said(gpu, "uuid")
        chip = re.fullmatch(r"(?:0x)?([0-9A-Fa-f]{4})10[Dd][Ee]", _said(gpu, "pci/pci_device_id"))
        if chip and uuid:
            smi.ids[uuid] = int(chip[1], 16)
        device = Device("cuda", name or "NVIDIA GPU", driver=driver, runtime=smi.cuda, id=uuid)
        if _said(gpu, "mig_mode/current_mig") == "Enabled":
            instances = list(_instances(gpu, device))
            smi.devices += instances
            if not instances:
                smi.mig_without_instances.append(device.name)
        else:
            smi.devices.append(_with_memory(device, gpu))
    return smi


def parse_table(text: str) -> dict[str, Device]:
    """The devices of the CSV table, by UUID. A line that is not of its form is left out."""
    devices: dict[str, Device] = {}
    for line in text.splitlines():
        columns = [column.strip() for column in line.split(",")]
        if len(columns) < 6 or not columns[0].startswith("GPU-"):
            continue
        # A name may hold a comma, nothing else may.
        uuid, name = columns[0], ", ".join(columns[1:-4])
        driver, total, free, capability = columns[-4:]
        total_bytes, free_bytes = _mebibytes(total), _mebibytes(free)
        devices[uuid] = Device(
            "cuda", name, total_bytes, min(free_bytes, total_bytes), driver=_version(driver),
            compute_capability=_version(capability), integrated=not total_bytes, id=uuid,
        )  # fmt: skip
    return devices


def cuda_of_driver(driver: str) -> str:
    """The newest CUDA version this driver is known to offer; empty for drivers before 450."""
    branch = int(match[0]) if (match := re.match(r"\d{1,6}", driver)) else 0
    return next((cuda for floor, cuda in reversed(_BRANCHES) if branch >= floor), "")


def reason_of(answer: Answer) -> str:
    """Why nvidia-smi told of no device, in words that help."""
    if answer.problem:
        hangs = ": the driver hangs; restart the computer" if "no answer" in answer.problem else ""
        return answer.problem + hangs
    said = answer.text.lower().replace("\u2019", "'")
    for words, meaning in _COMPLAINTS:
        if words in said:
            return meaning
    if answer.status:
        return f"nvidia-smi failed (status {answer.status}): {answer.first_line or 'it said nothing'}"
    return f"nvidia-smi told of no GPU: {answer.first_line or 'it said nothing'}"


def _reason(tools: Tools, answer: Answer, cards: list[Card]) -> str:
    if answer.problem != "nvidia-smi is not installed":
        return reason_of(answer)
    if not cards:
        return NO_CARD
    drivers = {card.driver for card in cards}
    if drivers == {"vfio-pci"}:
        return "the NVIDIA GPU is set aside for virtual machines (vfio-pci)"
    if "nvidia" in drivers or tools.read("/proc/driver/nvidia/version"):
        return "the NVIDIA kernel module runs but nvidia-smi is not installed: install the driver's tools"
    instead = " instead of nouveau" if "nouveau" in drivers else ""
    return f"no NVIDIA driver is installed: install NVIDIA's own driver{instead}"


def _completed(device: Device, report: Smi, table: dict[str, Device]) -> Device:
    """The report's device with what only the table tells."""
    card = table.get(device.id.partition("/")[0], Device("cuda", ""))
    capability = card.compute_capability or _capability_of_chip(report.ids.get(device.id.partition("/")[0]))
    device = replace(
        device,
        driver=device.driver or card.driver,
        compute_capability=capability,
        runtime=device.runtime or cuda_of_driver(device.driver or card.driver),
    )
    if not device.memory_total and card.memory_total:
        return replace(device, memory_total=card.memory_total, memory_free=card.memory_free, integrated=False)
    return device


def _instances(gpu: ET.Element, card: Device) -> Iterator[Device]:
    for instance in gpu.iterfind("mig_devices/mig_device"):
        index = _said(instance, "index")
        yield _with_memory(replace(card, name=f"{card.name} MIG {index}", id=f"{card.id}/{index}"), instance)


def _with_memory(device: Device, element: ET.Element) -> Device:
    total = _mebibytes(_said(element, "fb_memory_usage/total"))
    free = _mebibytes(_said(element, "fb_memory_usage/free"))
    # A GPU that shares the computer's memory (Grace Blackwell, Jetson) has none of its own to tell of.
    return replace(device, memory_total=total, memory_free=min(free, total), integrated=not total)


def _capability_of_chip(chip: int | None) -> str:
    if chip is None or chip >= _NEWEST_CHIP:
        return ""
    return next(capability for first, capability in reversed(_CHIPS) if chip >= first)


def _said(element: ET.Element, path: str) -> str:
    return " ".join((element.findtext(path) or "").split())


def _version(text: str) -> str:
    return text if re.fullmatch(r"\d{1,6}(\.\d{1,6}){0,3}", text) else ""


def _mebibytes(text: str) -> int:
    match = re.fullmatch(r"(\d{1,12})(?: MiB)?", text)
    return int(match[1]) * _MIB if match else 0
