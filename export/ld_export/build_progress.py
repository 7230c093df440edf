"""How far the library is with an engine: its nested phases as one share that only grows."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


@dataclass
class PhaseMeter:
    """Phases that begin, step and end, from several threads.

    Args:
        tell: gets the name of the phase that moved, and the share of the whole, 0-1.
    """

    tell: Callable[[str, float], None]
    share: float = 0.0
    _phases: dict[str, _Phase] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase of so many steps begins, inside another one or by itself."""
        with self._lock:
            self._phases[name] = _Phase(parent, max(steps, 1))
            self._moved(name)

    def step(self, name: str, step: int) -> None:
        """Its step of that number, from 0, is done."""
        with self._lock:
            if name in self._phases:
                self._phases[name].done = step + 1
            self._moved(name)

    def finish(self, name: str) -> None:
        """A phase ends, perhaps before all of its steps."""
        with self._lock:
            phase = self._phases.get(name)
            if phase is not None:
                phase.done = phase.steps
                self._moved(name)
                del self._phases[name]

    def _moved(self, name: str) -> None:
        outermost = [self._done(root) for root, phase in self._phases.items() if phase.parent not in self._phases]
        self.share = max(self.share, *outermost, 0.0)  # a phase inside that ends early must not take it back
        self.tell(name, self.share)

    def _done(self, name: str) -> float:
        phase = self._phases[name]
        inside = [self._done(child) for child, one in self._phases.items() if one.parent == name]
        return min((phase.done + max(inside, default=0.0)) / phase.steps, 1.0)


def progress_monitor(library: Any, meter: PhaseMeter) -> Any:
    """The library's progress monitor that feeds a meter. Control-C stops the build: `interrupted` is true then."""

    class Monitor(library.IProgressMonitor):
        def __init__(self) -> None:
            library.IProgressMonitor.__init__(self)
            self.interrupted = False

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._guard(lambda: meter.start(phase_name, parent_phase, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._guard(lambda: meter.step(phase_name, step))
            return not self.interrupted

        def phase_finish(self, phase_name: str) -> None:
            self._guard(lambda: meter.finish(phase_name))

        def _guard(self, work: Callable[[], None]) -> None:
            try:
                work()
            except KeyboardInterrupt:  # it must not pass through the library
                self.interrupted = True

    return Monitor()
