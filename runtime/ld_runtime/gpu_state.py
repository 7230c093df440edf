"""Clocks, temperature and power of a GPU while it is measured, and whether they held. The only module to name NVML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ld_runtime.cuda_device import CudaDevice, device_index
from ld_runtime.errors import BackendMissingError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

# A clock that moves by more than this share moves the times with it.
LARGEST_CHANGE = 0.03
# Bits of nvmlClocksEventReasons (nvml.h) that slow a GPU down; idleness and clocks that somebody has set do not count.
_SLOWED = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
_WAY_OUT = "lock the clocks (`nvidia-smi --lock-gpu-clocks`), let it cool, and measure again"


@dataclass(frozen=True)
class GpuReading:
    """A GPU at one moment.

    Args:
        sm_clock_mhz: of the multiprocessors.
        memory_clock_mhz: of the memory.
        temperature_c: of the chip.
        power_w: that it draws.
        slowed_by: what holds the clocks down.
    """

    sm_clock_mhz: int
    memory_clock_mhz: int
    temperature_c: int
    power_w: float
    slowed_by: tuple[str, ...]


@dataclass(frozen=True)
class GpuState:
    """What became of a GPU during a measurement.

    Args:
        stable: whether its clocks held; None where that is not known.
        reasons: why it was not stable, or why it is not known.
        readings: the first after the warm-up, then one after each round.
    """

    stable: bool | None
    reasons: tuple[str, ...]
    readings: tuple[GpuReading, ...] = ()

    @classmethod
    def of(cls, readings: Sequence[GpuReading]) -> GpuState:
        """Judges readings: a clock that moved by more than 3 % of its largest value, or anything that held it down.

        Raises:
            InputError: There are less than two.
        """
        if len(readings) < 2:
            raise InputError(f"a change is seen in two readings or more, got {len(readings)}")
        reasons = []
        for name, clocks in (
            ("SM", [one.sm_clock_mhz for one in readings]),
            ("memory", [one.memory_clock_mhz for one in readings]),
        ):
            change = (max(clocks) - min(clocks)) / max(*clocks, 1)
            if change > LARGEST_CHANGE:
                reasons.append(f"{name} clock between {min(clocks)} and {max(clocks)} MHz ({change:.0%})")
        slowed = {reason: None for one in readings for reason in one.slowed_by}  # each once, in their order
        reasons += [f"slowed down by {reason}" for reason in slowed]
        return cls(not reasons, tuple(reasons), tuple(readings))

    def __str__(self) -> str:
        if self.stable is None:
            return f"clocks unknown: {'; '.join(self.reasons)}"
        if not self.stable:
            return f"UNSTABLE, do not quote: {'; '.join(self.reasons)}; {_WAY_OUT}"
        first, last = self.readings[0], self.readings[-1]
        return (
            f"stable: SM {first.sm_clock_mhz} to {last.sm_clock_mhz} MHz, memory {last.memory_clock_mhz} MHz, "
            f"{first.temperature_c} to {last.temperature_c} °C, {last.power_w:.0f} W"
        )


class NvmlReader:
    """Reads one GPU through nvidia-ml-py.

    Args:
        pci_bus_id: of the GPU: NVML numbers GPUs in another order than CUDA.
        nvml: the module `pynvml`; another one in tests.

    Raises:
        BackendMissingError: nvidia-ml-py or the driver is not there.
    """

    def __init__(self, pci_bus_id: str, *, nvml: Any = None) -> None:
        self._nvml = nvml or _import_nvml()
        try:
            self._nvml.nvmlInit()
            self._handle = self._nvml.nvmlDeviceGetHandleByPciBusId(pci_bus_id)
        except self._nvml.NVMLError as error:
            raise BackendMissingError(f"NVML does not know the GPU {pci_bus_id} ({error}); see `nvidia-smi`") from error

    def read(self) -> GpuReading:
        """The GPU now.

        Raises:
            BackendMissingError: The driver does not tell.
        """
        nvml, handle = self._nvml, self._handle
        try:
            reasons = nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
            return GpuReading(
                sm_clock_mhz=nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
                memory_clock_mhz=nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
                temperature_c=nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
                power_w=nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
                slowed_by=tuple(name for bit, name in _SLOWED.items() if reasons & bit),
            )
        except nvml.NVMLError as error:
            raise BackendMissingError(f"NVML does not tell the state of the GPU: {error}") from error


class GpuWatch:
    """Gathers readings during a measurement. Where there is none to be had, the state says why."""

    def __init__(self, device: str) -> None:
        self._readings: list[GpuReading] = []
        self._reader: NvmlReader | None = None
        self._missing = ""
        try:
            self._reader = NvmlReader(CudaDevice(device_index(device)).facts.pci_bus_id)
        except BackendMissingError as error:
            self._missing = str(error)

    def read(self) -> None:
        """Takes a reading."""
        if self._reader is None or self._missing:
            return
        try:
            self._readings.append(self._reader.read())
        except BackendMissingError as error:
            self._missing = str(error)

    def state(self) -> GpuState:
        """Of all readings."""
        return GpuState(None, (self._missing,)) if self._missing else GpuState.of(self._readings)


def _import_nvml() -> Any:
    try:
        import pynvml
    except ImportError as error:
        raise BackendMissingError("nvidia-ml-py is not installed: pip install 'ld-deploy[gpu]'") from error
    return pynvml
