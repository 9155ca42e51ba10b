"""The real client, at the room's one service."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import tritonclient.http as triton

from tests.service.api.oip.triton import triton_client
from tests.service.process import Service


@pytest.fixture
def tritonclient(service: Service) -> Iterator[triton.InferenceServerClient]:
    with triton_client(service.port) as client:
        yield client
