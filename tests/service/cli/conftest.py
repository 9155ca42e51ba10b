"""The commands drive a service with two good versions, as the tests of the lifecycle do."""

from tests.service.lifecycle.conftest import shared_swapping, swapping

__all__ = ["shared_swapping", "swapping"]
