"""NVIDIA cards, as `nvidia-smi` tells of them: driver, the CUDA version it offers, compute capability, memory.

Two questions, because no single one is understood by every driver: the XML report has neither the compute capability
nor, on some, the memory; the table has no CUDA version, and drivers before 510 refuse it for the capability.
No driver library is loaded here. nvidia-smi shows the cards that variables hide from CUDA, so these are applied after.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

from msgspec import Struct, field
from msgspec.structs import replace

from jan_core.types import Device

from . import mig
from .found import Found
from .pci import NVIDIA, Card
from .tools import Answer, Answers, Command, Tools
from .visible import applied, by_cuda, setting

__all__ = ["NO_CARD", "Smi", "commands", "cuda_of_driver", "find", "parse_table", "parse_xml", "reason_of"]

NO_CARD = "no NVIDIA GPU was found"

_XML: Command = ("nvidia-smi", "-q", "-x")
_FIELDS = "uuid,name,driver_version,memory.total,memory.free,compute_cap"
_TABLE: Command = ("nvidia-smi", f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits")
_LISTING: Command = ("nvidia-smi", "-L")
_MIB = 2**20
_VISIBLE, _ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"

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
    """One report of nvidia-smi: devices by their place on the bus. `ids`: PCI device ids by UUID. `instances`: of MIG
    instances, by device id: number on the card, and UUID where the report has it.
    """

    cuda: str = ""
    devices: list[Device] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)
    instances: dict[str, tuple[str, str]] = field(default_factory=dict)
    mig_without_instances: list[str] = field(default_factory=list)


def commands(tools: Tools) -> list[Command]:
    """What `find` needs answers to."""
    if tools.platform == "darwin":
        return []
    return [_XML, _TABLE, _LISTING] if "MIG-" in (tools.env(_VISIBLE) or "") else [_XML, _TABLE]


def find(tools: Tools, answers: Answers, cards: list[Card]) -> Found:
    """The CUDA devices of this machine that an engine sees and uses, numbered as by `CUDA_DEVICE_ORDER=PCI_BUS_ID`."""
    if tools.platform == "darwin":
        return Found([], "there is no CUDA on macOS")
    report = parse_xml(answers[_XML].output) if answers[_XML].ok else Smi()
    table = parse_table(answers[_TABLE].output) if answers[_TABLE].ok else {}
    devices = [_completed(device, report, table) for device in report.devices]
    if not devices and not report.mig_without_instances:  # the XML report failed or was cut short; the table may do
        devices = [replace(device, runtime=cuda_of_driver(device.driver)) for device in table.values()]
    uncut = [f"MIG is enabled on the {name} without an instance: create one, or disable MIG"
             for name in report.mig_without_instances]  # fmt: skip
    if devices:
        found = _seen(tools, answers, report, devices)
        return replace(found, notes=[*found.notes, *uncut])
    if uncut:
        return Found([], uncut[0])
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
    for gpu in sorted(root.iter("gpu"), key=lambda gpu: _said(gpu, "pci/pci_bus_id").lower()):
        name, uuid = _said(gpu, "product_name"), _said(gpu, "uuid") or gpu.get("id", "")
        chip = re.fullmatch(r"(?:0x)?([0-9A-Fa-f]{4})10[Dd][Ee]", _said(gpu, "pci/pci_device_id"))
        if chip and uuid:
            smi.ids[uuid] = int(chip[1], 16)
        device = Device("cuda", name or "NVIDIA GPU", driver=driver, runtime=smi.cuda, id=uuid)
        if _said(gpu, "mig_mode/current_mig") == "Enabled":
            instances = list(_instances(gpu, device))
            smi.devices += [instance for instance, _, _ in instances]
            smi.instances.update({instance.id: (index, mig_uuid) for instance, index, mig_uuid in instances})
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


def _seen(tools: Tools, answers: Answers, report: Smi, devices: list[Device]) -> Found:
    """What CUDA shows a process of these, and llama.cpp uses."""
    value, order = tools.env(_VISIBLE), tools.env(_ORDER)
    found = Found(devices)
    if value is not None:
        listing = mig.parse_listing(answers[_LISTING].output) if _LISTING in answers else {}
        uuids = {
            id: uuid or listing.get((id.partition("/")[0], index), "") for id, (index, uuid) in report.instances.items()
        }
        seen = by_cuda(value, [device.id for device in devices], uuids)
        found = applied(devices, seen, setting(_VISIBLE, value), "NVIDIA GPU")
        if found.reason and "MIG-" in value and not all(uuids.values()):
            found = replace(found, reason=f"{found.reason}: nvidia-smi does not tell the UUIDs of its MIG instances")
    found = mig.usable(found)
    by_number = order is not None if value is None else not value.lstrip().startswith(("GPU-", "MIG-"))
    if found.devices and by_number and order != "PCI_BUS_ID" and len({mig.card_name(device) for device in devices}) > 1:
        note = "CUDA numbers unlike GPUs by their speed, nvidia-smi and this list by their place on the bus"
        found = replace(found, notes=[*found.notes, f"{note}: {_ORDER}=PCI_BUS_ID makes it certain which is which"])
    return found


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


def _instances(gpu: ET.Element, card: Device) -> Iterator[tuple[Device, str, str]]:
    """Each with its number on the card and, where the report has it, its UUID."""
    for instance in gpu.iterfind("mig_devices/mig_device"):
        index, uuid = _said(instance, "index"), _said(instance, "uuid")
        place = "/".join(_said(instance, f"{part}_instance_id") for part in ("gpu", "compute"))
        device = replace(card, name=mig.name(card, index), id=f"{card.id}/{place}")
        yield _with_memory(device, instance), index, uuid


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
