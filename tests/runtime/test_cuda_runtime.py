"""The CUDA run time on the stand-in driver, with streams that run late and with streams that run at once."""
from __future__ import annotations

import pytest

pytest.register_assert_rewrite("cuda_suite")

from cuda_fake import FakeCuda
from cuda_suite import *  # noqa: F403
from cuda_suite import Kit

from graphc.runtime.cuda import driver


@pytest.fixture(params=["late", "at once"])
def kit(request):
    fake = FakeCuda(eager=request.param == "at once")
    driver.reset(lambda: fake)
    yield Kit(b"FAKE", fake)
    driver.reset()
