"""A typed client for Aphrodite servers, on top of the official openai package."""

from aphrodite_client.async_client import AsyncClient
from aphrodite_client.client import Client
from aphrodite_client.wire.sampling import SamplingFields

__all__ = ["AsyncClient", "Client", "SamplingFields", "__version__"]

__version__ = "0.1.0"
