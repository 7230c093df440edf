from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.gpu.machines import Machine, build_emulation, missing_gpu


@pytest.fixture(scope="session")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not any(map(shutil.which, ("g++", "c++"))):
        pytest.skip("no C++ compiler")
    return build_emulation(tmp_path_factory.mktemp("emulation"))


@pytest.fixture(scope="session", params=["emulated"] if missing_gpu() else ["emulated", "cuda"])
def machine(request: pytest.FixtureRequest) -> Machine:
    """The kernels on the host and, where there is a GPU, on it too; `make kernels` builds those."""
    if request.param == "emulated":
        return Machine.emulated(request.getfixturevalue("emulation"))
    return Machine.cuda()
