"""Whether a GPU's clocks held, from readings by hand and from an NVML whose answers are known."""

from types import SimpleNamespace
from typing import Any

import pytest

from ld_runtime import gpu_state
from ld_runtime.errors import BackendMissingError, InputError
from ld_runtime.gpu_state import GpuReading, GpuState, GpuWatch, NvmlReader


def reading(sm: int = 1500, memory: int = 5000, slowed_by: tuple[str, ...] = ()) -> GpuReading:
    return GpuReading(sm, memory, 60, 200.0, slowed_by)


@pytest.mark.parametrize(
    ("clocks", "stable"),
    [
        ((1500, 1500), True),
        ((1000, 970), True),  # exactly 3 %
        ((1000, 969), False),
        ((969, 1000), False),
        ((1000, 900, 1000), False),  # between the first and the last
        ((0, 0), True),  # a driver that tells no clocks
    ],
)
def test_clocks(clocks: tuple[int, ...], stable: bool) -> None:
    for readings in ([reading(sm=one) for one in clocks], [reading(memory=one) for one in clocks]):
        state = GpuState.of(readings)
        assert state.stable is stable
        assert bool(state.reasons) is not stable
        assert state.readings == tuple(readings)


def test_reasons_are_told() -> None:
    state = GpuState.of([reading(slowed_by=("power cap",)), reading(sm=1200, slowed_by=("power cap", "power brake"))])
    assert state.reasons == (
        "SM clock between 1200 and 1500 MHz (20%)",
        "slowed down by power cap",
        "slowed down by power brake",
    )
    assert str(state).startswith("UNSTABLE, do not quote: SM clock between 1200 and 1500 MHz (20%); slowed down by")
    assert "--lock-gpu-clocks" in str(state)
    steady = GpuState.of([reading(), reading()])
    assert str(steady) == "stable: SM 1500 to 1500 MHz, memory 5000 MHz, 60 to 60 °C, 200 W"
    assert GpuState.of([reading(slowed_by=("power cap",)), reading()]).stable is False
    for readings in ([], [reading()]):
        with pytest.raises(InputError, match="two readings or more"):
            GpuState.of(readings)


class Nvml:
    """`pynvml` with one GPU."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    NVMLError = type("NVMLError", (Exception,), {})

    def __init__(self, reasons: int = 0, broken: str = "") -> None:
        self.reasons, self.broken = reasons, broken

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml") and name == object.__getattribute__(self, "broken"):
            raise Nvml.NVMLError("not there")
        return object.__getattribute__(self, name)

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetHandleByPciBusId(self, bus: str) -> str:  # noqa: N802
        return f"handle {bus}"

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:  # noqa: N802
        assert handle == "handle 0000:01:00.0"
        return {1: 1410, 2: 1215}[kind]

    def nvmlDeviceGetCurrentClocksEventReasons(self, _handle: str) -> int:  # noqa: N802
        return self.reasons

    def nvmlDeviceGetTemperature(self, _handle: str, sensor: int) -> int:  # noqa: N802
        return {0: 55}[sensor]

    def nvmlDeviceGetPowerUsage(self, _handle: str) -> int:  # noqa: N802
        return 123456  # mW


@pytest.mark.parametrize(
    ("bits", "slowed_by"),
    [
        (0x0, ()),
        (0x1 | 0x2 | 0x100, ()),  # idle, clocks that were set, of the display
        (0x4, ("power cap",)),
        (0x8 | 0x40, ("hardware slowdown", "hardware thermal slowdown")),
        (0x10 | 0x20 | 0x80, ("sync boost", "software thermal slowdown", "power brake")),
    ],
)
def test_what_nvml_says(bits: int, slowed_by: tuple[str, ...]) -> None:
    reader = NvmlReader("0000:01:00.0", nvml=Nvml(bits))
    assert reader.read() == GpuReading(1410, 1215, 55, 123.456, slowed_by)


def test_the_bits_are_those_of_nvml() -> None:
    import pynvml

    expected = {
        pynvml.nvmlClocksEventReasonSwPowerCap: "power cap",
        pynvml.nvmlClocksEventReasonHwSlowdown: "hardware slowdown",
        pynvml.nvmlClocksEventReasonSyncBoost: "sync boost",
        pynvml.nvmlClocksEventReasonSwThermalSlowdown: "software thermal slowdown",
        pynvml.nvmlClocksEventReasonHwThermalSlowdown: "hardware thermal slowdown",
        pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "power brake",
    }
    assert expected == gpu_state._SLOWED


def test_nvml_that_does_not_answer() -> None:
    for broken in ("nvmlInit", "nvmlDeviceGetHandleByPciBusId"):
        with pytest.raises(BackendMissingError, match=r"NVML does not know the GPU 0000:01:00.0 \(not there\)"):
            NvmlReader("0000:01:00.0", nvml=Nvml(broken=broken))
    reader = NvmlReader("0000:01:00.0", nvml=Nvml(broken="nvmlDeviceGetPowerUsage"))
    with pytest.raises(BackendMissingError, match="does not tell the state of the GPU: not there"):
        reader.read()


def test_a_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimpleNamespace(facts=SimpleNamespace(pci_bus_id="0000:01:00.0"))
    monkeypatch.setattr(gpu_state, "CudaDevice", lambda index: gpu if index == 1 else None)
    monkeypatch.setattr(gpu_state, "_import_nvml", Nvml)
    watch = GpuWatch("cuda:1")
    watch.read()
    watch.read()
    assert watch.state().stable is True
    assert len(watch.state().readings) == 2


def test_a_watch_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_index: int) -> None:
        raise BackendMissingError("CUDA finds no GPU here")

    monkeypatch.setattr(gpu_state, "CudaDevice", missing)
    watch = GpuWatch("cuda")
    watch.read()
    assert watch.state() == GpuState(None, ("CUDA finds no GPU here",))
    assert str(watch.state()) == "clocks unknown: CUDA finds no GPU here"


def test_the_real_nvml_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    def no_driver() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    with pytest.raises(BackendMissingError, match=r"NVML does not know the GPU x .*nvidia-smi"):
        NvmlReader("x")
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    with pytest.raises(BackendMissingError, match=r"nvidia-ml-py is not installed: pip install 'ld-deploy\[gpu\]'"):
        NvmlReader("x")
