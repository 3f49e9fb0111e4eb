"""The CUDA run time on the stand-in driver, with streams that run late and with streams that run at once.

With GRAPHC_TEST_STUB set (by test_cuda_bindings.py) the same programs go through cuda-bindings into a stand-in library.
"""
from __future__ import annotations

import os

import pytest

pytest.register_assert_rewrite("cuda_suite")

from cuda_fake import FakeCuda
from cuda_suite import *  # noqa: F403
from cuda_suite import Kit

from graphc.runtime.cuda import driver

STUB = "GRAPHC_TEST_STUB" in os.environ


@pytest.fixture(params=["library"] if STUB else ["late", "at once"])
def kit(request):
    if STUB:
        driver.reset()
        assert not driver.reason()
        yield Kit(b"FAKE")
    else:
        fake = FakeCuda(eager=request.param == "at once")
        driver.reset(lambda: fake)
        yield Kit(b"FAKE", fake)
    driver.reset()
