"""What tests of the sampler share."""

import pytest
import torch


@pytest.fixture
def one_thread():
    """The rest of the machine is busy; a thread that waits for its turn stops all of them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
