"""What a step reads of the rows that it computes."""

from torch import Tensor

from aphrodite_kernels.protocols import Located


def locate(
    rows: Tensor,
    owners: Tensor,
    positions: Tensor,
    tokens: Tensor,
    tables: Tensor,
    block_size: int,
) -> Located:
    """Implements protocols.Locate."""
    owners, at = owners.long(), positions.long()
    slots = tables[:, owners, at // block_size].long() * block_size + at % block_size
    return Located(tokens[owners, at], slots, tables.index_select(1, rows))
