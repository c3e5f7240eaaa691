"""A GPU that the kernels cannot use is refused in a sentence that says what they need."""

import pytest
import torch
from aphrodite_kernels import BackendError, backend_for
from aphrodite_kernels.backends.triton import device

pytest.importorskip("triton")


@pytest.fixture
def card(monkeypatch):
    """Pretend that there is a GPU of some compute capability."""

    def pretend(*capability):
        monkeypatch.setattr(device, "interpreted", lambda: False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capability))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Some Card")
        monkeypatch.delenv("APHRODITE_BACKEND", raising=False)

    return pretend


def test_an_old_card_is_told_the_floor(card):
    card(7, 5)
    with pytest.raises(BackendError) as caught:
        backend_for(torch.device("cuda"))
    message = str(caught.value)
    assert "Some Card has compute capability 7.5; the kernels need 8.0 (Ampere) or newer" in message
    assert message.endswith("set APHRODITE_BACKEND=reference for plain torch, which is very slow")


@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (9, 0), (10, 0)])
def test_newer_cards_have_no_obstacle(card, capability):
    card(*capability)
    assert device.device_obstacle() is None
    assert device.overlaps(torch.device("cuda")) == (capability >= (9, 0))
    assert device.reads_float8(torch.device("cuda")) == (capability >= (8, 9))


def test_without_a_card(card):
    card()
    with pytest.raises(BackendError, match="device cuda cannot be used: PyTorch sees no CUDA"):
        backend_for(torch.device("cuda"))
