"""Tests of small tensors: a second torch thread would spend its time waiting."""

import torch

torch.set_num_threads(1)
