"""What a sampler stage is.

The class is the declaration: its annotated fields are the wire fields with their bounds, its
docstring is the documentation in the API and the client, `apply` is the maths. Presence in
stages/ registers it. Law of defaults: a stage whose fields stand at their defaults is the identity.

A stage knows rows of logits and its own parameters. It knows nothing of requests, batches or the
order in which others run: sampler.py gathers the rows that use it and hands it those alone.
"""

import importlib
import pkgutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Self, Union

import msgspec
import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor

from aphrodite_engine.errors import RequestError
